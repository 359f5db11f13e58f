"""Put one parametrization on every owner of a weight, and take it off again."""

from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrize import ParametrizationList

from polarity.attach.own_methods import give_own_methods
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.registering import own_class, register_light
from polarity.targets.recurrent import release_flat_weights
from polarity.targets.state_keys import accept_plain_checkpoints
from polarity.targets.target import Target
from polarity.targets.torch_prune import torch_mask

__all__ = ["attach_form", "make_plain"]


def attach_form(
    target: Target, form: nn.Module, *, convert: bool = False
) -> list[ParametrizationList]:
    """Register a parametrization on the owners of a weight that have none yet.

    Args:
        target: the weight; dense checkpoints still load into its owners.
        form: the parametrization, shared by them.
        convert: store what ``form.right_inverse`` makes of the weight. By default the weight is
            stored as it is, without a copy.

    Returns:
        The new lists of parametrizations, one for each such owner.
    """
    chains = []
    for use in target.owners:
        accept_plain_checkpoints(use.module)
        release_flat_weights(use.module)
        if parametrize.is_parametrized(use.module, use.tensor_name):
            continue
        own_class(use.module)
        chain = register_light(use.module, use.tensor_name, form if convert else nn.Identity())
        if isinstance(form, MaskedWeight):
            form.name, form.placed = target.name, True
        chain[0] = form.train(use.module.training)
        give_own_methods(use.module)
        chains.append(chain)
    return chains


def make_plain(target: Target) -> None:
    """Make a weight the parameter it is stored as, in every owner."""
    for use in target.owners:
        if parametrize.is_parametrized(use.module, use.tensor_name):
            own_class(use.module)
            parametrize.remove_parametrizations(
                use.module, use.tensor_name, leave_parametrized=False
            )
        elif torch_mask(use.module, use.tensor_name) is not None:
            prune.remove(use.module, use.tensor_name)  # type: ignore[no-untyped-call]
