"""Callbacks for the training loops of others; each module needs the package of its name."""
