"""The papers' experiments, run with `python -m benchmarks`, on polarity's public names alone."""
