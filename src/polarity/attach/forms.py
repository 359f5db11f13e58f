"""Put one parametrization on every owner of a weight, and take it off again."""

from typing import Any, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrize import ParametrizationList

from polarity.attach.own_methods import give_own_methods
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.registering import own_class, register_light
from polarity.targets.recurrent import release_flat_weights
from polarity.targets.state_hooks import accept_plain_checkpoints
from polarity.targets.target import Target
from polarity.targets.torch_prune import torch_mask

__all__ = ["attach_form", "make_plain"]

Stored: TypeAlias = tuple[nn.Parameter, ...]


class _AsStored(nn.Module):
    """A stand-in to register with: what the weight is stored as is given, and nothing is written.

    Registering a parametrization that gives one tensor writes to the parameter (``set_``); one that
    gives a sequence does not.
    """

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self._stored = [stored]  # in a list, so that they are no parameters of this module

    def forward(self, first: Tensor, *_: Tensor) -> Tensor:
        return first

    def right_inverse(self, _: Tensor) -> Stored:
        return self._stored[0]


def attach_form(
    target: Target,
    form: nn.Module,
    *,
    convert: bool = False,
    stored: Stored | None = None,
) -> list[ParametrizationList]:
    """Register a parametrization on the owners of a weight that have none yet.

    Without ``convert`` no tensor is written.

    Args:
        target: the weight; dense checkpoints still load into its owners.
        form: the parametrization, shared by them.
        convert: store what ``form.right_inverse`` makes of the weight. By default the weight is
            stored as it is, without a copy.
        stored: the parameters to store instead of the weight.

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
        if convert:
            chain = register_light(use.module, use.tensor_name, form)
        else:
            leaves = stored or cast(Stored, (use.module._parameters[use.tensor_name],))
            chain = register_light(use.module, use.tensor_name, _AsStored(leaves))
            _store(chain, leaves)
        if isinstance(form, MaskedWeight):
            form.name, form.placed = target.name, True
        chain[0] = form.train(use.module.training)
        give_own_methods(use.module)
        chains.append(chain)
    return chains


def _store(chain: ParametrizationList, leaves: Stored) -> None:
    """Let these very parameters be what a chain holds, of which torch has made copies."""
    if len(leaves) == 1:
        for name in [name for name in chain._parameters if name.startswith("original")]:
            del chain._parameters[name]
        chain.is_tensor, chain.ntensors = True, 1
        chain.register_parameter("original", leaves[0])
    else:
        for place, leaf in enumerate(leaves):
            chain.register_parameter(f"original{place}", leaf)


def make_plain(target: Target, weight: nn.Parameter | None = None) -> None:
    """Make a weight the parameter it is stored as, in every owner; or the given one instead.

    A mask that was enforced in an optimizer's step is no longer.
    """
    if target.masking is not None and target.masking.in_step is not None:
        target.masking.in_step.remove()
    for use in target.owners:
        if parametrize.is_parametrized(use.module, use.tensor_name):
            own_class(use.module)
            if weight is not None:
                chains: Any = use.module.parametrizations
                _store(chains[use.tensor_name], (weight,))
            parametrize.remove_parametrizations(
                use.module, use.tensor_name, leave_parametrized=False
            )
        elif torch_mask(use.module, use.tensor_name) is not None:
            prune.remove(use.module, use.tensor_name)  # type: ignore[no-untyped-call]
