"""Exact selection of the highest-scored entries of many tensors."""
