"""Prune a model: how many entries stay, which ones, and how their masks are installed."""
