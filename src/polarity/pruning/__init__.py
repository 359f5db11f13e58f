"""Prune a model: how many entries stay, which ones, and how masks are installed."""
