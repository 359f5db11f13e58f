"""Capture a moment of a training run, rewind to it, save it and load it."""

from polarity.rewind.point import RewindPoint, weights_of

__all__ = ["RewindPoint", "weights_of"]
