"""Training that ends sparse: schedules that change the masks of a model while it trains.

A training loop calls ``.step()`` of a schedule after each ``optimizer.step()``.
"""

from polarity.dense_to_sparse.drop_and_grow import DropAndGrow, drop_and_grow
from polarity.dense_to_sparse.report import LayerUpdate, UpdateReport
from polarity.dense_to_sparse.set_and_rigl import SET, RigL

__all__ = ["SET", "DropAndGrow", "LayerUpdate", "RigL", "UpdateReport", "drop_and_grow"]
