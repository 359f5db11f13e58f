"""The prunable weights of a model: find them, name them, read and write them."""
