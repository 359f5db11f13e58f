"""How much every entry of a weight matters; the entries with the highest scores survive.

A score of one weight at a time is a function ``(name, weight) -> score tensor``. Any function of
that form can be given to :func:`polarity.prune`, and to :func:`polarity.imp_prune` as ``score=``.
Scores that also look at the initial weights are built from them::

    imp_prune(model, 0.2, score=large_final_same_sign(start))

Scores of the whole model at once, for pruning at initialisation, are computed first, as
``{plain name: score tensor}``::

    prune(model, snip(model, loss_fn, batches), density=0.1)

``snip``, ``grasp`` and ``synflow`` compute on a copy of the model and restore the random state of
torch: the model, its gradients and modes, and the random state are unchanged, bit for bit.
"""

from polarity.scores.gradient_flow import grasp
from polarity.scores.initial import Initial as Initial
from polarity.scores.initial import initial_like as initial_like
from polarity.scores.initial import (
    large_final_diff_sign,
    large_final_same_sign,
    magnitude_increase,
)
from polarity.scores.score import Score
from polarity.scores.sensitivity import snip
from polarity.scores.synaptic_flow import synflow
from polarity.scores.weight import magnitude, random

__all__ = [
    "Score",
    "grasp",
    "large_final_diff_sign",
    "large_final_same_sign",
    "magnitude",
    "magnitude_increase",
    "random",
    "snip",
    "synflow",
]
