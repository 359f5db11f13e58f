"""polarity: pruning research in PyTorch that treats the sign of a weight as the thing to keep.

The public names are listed in ``__all__``; ``help(polarity.imp_prune)`` and the like explain each.
"""

from polarity import scores
from polarity.checkpoint import load, save
from polarity.conversion import dense_state_dict, mask_weights, merge
from polarity.iterative import imp_prune, lrr_step
from polarity.masking import density, load_masks, masks, sparsity
from polarity.parametrizations import MaskedWeight
from polarity.perturb import Delta, Epsilon, Phi
from polarity.prune_report import PruneReport
from polarity.pruning import prune
from polarity.reinit import reinit_signs, signed_constants
from polarity.rewind import RewindPoint
from polarity.sign_report import SignReport
from polarity.targets import find_targets

__version__ = "0.1.0"

__all__ = [
    "Delta",
    "Epsilon",
    "MaskedWeight",
    "Phi",
    "PruneReport",
    "RewindPoint",
    "SignReport",
    "dense_state_dict",
    "density",
    "find_targets",
    "imp_prune",
    "load",
    "load_masks",
    "lrr_step",
    "mask_weights",
    "masks",
    "merge",
    "prune",
    "reinit_signs",
    "save",
    "scores",
    "signed_constants",
    "sparsity",
]
