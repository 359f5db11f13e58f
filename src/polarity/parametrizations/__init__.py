"""What a weight is made of while it trains, one idea per file.

Every class here is an ordinary parametrization and works by hand::

    torch.nn.utils.parametrize.register_parametrization(layer, "weight", MaskedWeight(mask))
"""

from polarity.parametrizations.masked import MaskedWeight

__all__ = ["MaskedWeight"]
