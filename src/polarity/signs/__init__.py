"""Reinitialise survivors to signed constants."""
