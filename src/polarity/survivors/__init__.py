"""Train only what is left: weights that are stored as the survivors of their masks."""

from polarity.survivors.compact import compact
from polarity.survivors.expand import expand

__all__ = ["compact", "expand"]
