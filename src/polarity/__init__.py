"""polarity: pruning research in PyTorch that treats the sign of a weight as the thing to keep.

The public names are listed in ``__all__``; ``help(polarity.imp_prune)`` and the like explain each.
"""

from polarity import dense_to_sparse, densities, deploy, scores
from polarity._bits.random import VERSION as _DRAWS_VERSION
from polarity.analysis import (
    ErrorBarrier,
    FlipReport,
    SignTracker,
    Summary,
    error_barrier,
    init_noise_stability,
    recalibrate_batch_norm,
    sgd_noise_stability,
    sharpness,
    sign_flips,
    summary,
)
from polarity.attach.checkpoint import load, save
from polarity.attach.density import density, sparsity
from polarity.attach.enforce import StepEnforcement, enforce_in_step
from polarity.attach.inner_scaling import frobenius_decay, inner_scaling
from polarity.attach.masks import load_masks, mask_weights, masks
from polarity.attach.merge import dense_state_dict, merge
from polarity.attach.norm_alpha import (
    load_norm_alpha_state,
    norm_alpha,
    norm_alpha_state,
    set_norm_alpha,
)
from polarity.attach.norms import interpolate_norms
from polarity.attach.reinitialize import reinitialize
from polarity.attach.rescaling import RescaleSchedule, rescale
from polarity.attach.sign_in import sign_in
from polarity.parametrizations import (
    MaskedWeight,
    NormInterp,
    SignInMW,
    SoftThreshold,
    SurvivorWeight,
)
from polarity.pruning.imp import imp_prune, lrr_step
from polarity.pruning.prune import prune
from polarity.pruning.report import PruneReport
from polarity.pruning.rounds import PruneRounds
from polarity.rewind import RewindPoint
from polarity.signs.constants import signed_constants
from polarity.signs.perturb import Delta, Epsilon, Phi
from polarity.signs.reinit import reinit_signs
from polarity.signs.report import SignReport
from polarity.survivors import CompactReport, compact, expand
from polarity.targets.search import find_targets
from polarity.tickets.signed_mask import SignedMask
from polarity.tickets.start_report import StartReport
from polarity.tickets.starts import start_from_magnitudes, start_from_mask, start_from_signs
from polarity.tickets.take import signed_mask

__version__ = "0.1.0"
# Another version draws other signs, masks and scores from the same seed.
__draws_version__ = _DRAWS_VERSION

__all__ = [
    "CompactReport",
    "Delta",
    "Epsilon",
    "ErrorBarrier",
    "FlipReport",
    "MaskedWeight",
    "NormInterp",
    "Phi",
    "PruneReport",
    "PruneRounds",
    "RescaleSchedule",
    "RewindPoint",
    "SignInMW",
    "SignReport",
    "SignTracker",
    "SignedMask",
    "SoftThreshold",
    "StartReport",
    "StepEnforcement",
    "Summary",
    "SurvivorWeight",
    "compact",
    "dense_state_dict",
    "dense_to_sparse",
    "densities",
    "density",
    "deploy",
    "enforce_in_step",
    "error_barrier",
    "expand",
    "find_targets",
    "frobenius_decay",
    "imp_prune",
    "init_noise_stability",
    "inner_scaling",
    "interpolate_norms",
    "load",
    "load_masks",
    "load_norm_alpha_state",
    "lrr_step",
    "mask_weights",
    "masks",
    "merge",
    "norm_alpha",
    "norm_alpha_state",
    "prune",
    "recalibrate_batch_norm",
    "reinit_signs",
    "reinitialize",
    "rescale",
    "save",
    "scores",
    "set_norm_alpha",
    "sgd_noise_stability",
    "sharpness",
    "sign_flips",
    "sign_in",
    "signed_constants",
    "signed_mask",
    "sparsity",
    "start_from_magnitudes",
    "start_from_mask",
    "start_from_signs",
    "summary",
]
