"""What a weight is made of while it trains, one idea per file.

Every class here is an ordinary parametrization and works by hand::

    torch.nn.utils.parametrize.register_parametrization(layer, "weight", MaskedWeight(mask))
"""

from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.shared_alpha import SharedAlpha
from polarity.parametrizations.sign_in import SignInMW, balanced_factors

__all__ = ["MaskedWeight", "NormInterp", "SharedAlpha", "SignInMW", "balanced_factors"]
