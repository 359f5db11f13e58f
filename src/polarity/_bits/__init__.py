"""Packed booleans, tensors in chunks, and the one way to draw at random."""
