"""Parametrizations: what a weight is made of while it trains, one in each file.

Every module here works with PyTorch's own call::

    torch.nn.utils.parametrize.register_parametrization(layer, "weight", MaskedWeight(mask))
"""

from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.shared_alpha import SharedAlpha
from polarity.parametrizations.sign_in import SignInMW, balanced_factors
from polarity.parametrizations.soft_threshold import SoftThreshold
from polarity.parametrizations.survivor_weight import SurvivorWeight

__all__ = [
    "MaskedWeight",
    "NormInterp",
    "SharedAlpha",
    "SignInMW",
    "SoftThreshold",
    "SurvivorWeight",
    "balanced_factors",
]
