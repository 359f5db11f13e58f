"""One experiment of two papers: The Fragility of Polarity, and Beyond the Zero-Crossing."""
