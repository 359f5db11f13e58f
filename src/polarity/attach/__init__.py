"""Attach parametrizations to a model, take them off again, and everything in between."""
