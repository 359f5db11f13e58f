"""Let the normalisation layers of a model train between their trained and initial parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polarity._bits.random import undrawn_on_error
from polarity._checks import check_entries, check_flag, check_generator, check_tensors
from polarity._running import outside_inference_mode
from polarity.attach.forms import attach_form, make_plain
from polarity.attach.norm_alpha import norm_interps
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.shared_alpha import SharedAlpha, draw_seeds
from polarity.rewind import RewindPoint, weights_of
from polarity.targets.norms import find_norms
from polarity.targets.search import all_targets
from polarity.targets.selectors import Selector
from polarity.targets.shards import refuse_sharded
from polarity.targets.state_hooks import forget_plain_checkpoints
from polarity.targets.target import check_has_values
from polarity.targets.wrappers import refuse_ddp, unwrapped

__all__ = ["attached_norms", "detach_norms", "draw_when_called", "interpolate_norms"]


@outside_inference_mode
def interpolate_norms(
    model: nn.Module,
    *,
    initial: RewindPoint | Mapping[str, Tensor] | None = None,
    per_layer: bool = False,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    generator: torch.Generator | None = None,
    verbose: bool = False,
) -> nn.Module:
    r"""Put a :class:`NormInterp` on the weight and bias of every normalisation layer, in place.

    In training mode the layers compute with :math:`\alpha\psi + (1-\alpha)\psi_\mathrm{init}`. One
    :math:`\alpha \sim U(0, 1)` is drawn for all of them whenever the model is called in training
    mode. Only the call ``model(x)`` draws: calling a single layer does not, nor does activation
    checkpointing when it recomputes a layer. In evaluation mode they compute with :math:`\psi`.

    The parameters stay the same objects: an optimizer built earlier keeps training them. Parameters
    that are interpolated already are left as they are. :func:`merge` makes them plain again, with
    their trained values; loading a dense checkpoint sets the trained values.

    - Gradient accumulation: every micro-batch is a forward pass and draws. Keep one value for all
      of them with ``with set_norm_alpha(model, "hold"):``. This is required if activation
      checkpointing is used and several forward passes precede one backward pass, because
      recomputation sees the last value. (It is required as well if only parts of the model are
      compiled; PyTorch raises otherwise.)
    - Distributed training: the stream starts from rank 0's seeds on every rank, so all ranks have
      the same values while they make the same number of training forward passes. Call this on every
      rank after ``torch.distributed`` is initialised and before wrapping in
      ``DistributedDataParallel`` or calling ``fully_shard``. With a ``generator`` it does not
      communicate: give all ranks the same seed.
    - Attach before ``torch.compile``. A new value changes a tensor in place: no recompilation.
    - The stream's state is in the ``state_dict``: a resumed run continues the saved stream.

    Args:
        model: any module with BatchNorm1d/2d/3d, SyncBatchNorm, InstanceNorm, LayerNorm, GroupNorm
            or RMSNorm layers, or subclasses of these, that have parameters.
        initial: :math:`\psi_\mathrm{init}` by plain name; by default the values of this moment.
        per_layer: draw a value for each layer; its weight and bias still share it.
        targets: which parameters, in the forms of :func:`find_targets`, among those of
            normalisation layers. A module type that matches none of these selects its own
            parameters, so that ``targets=MyRMSNorm`` works for a class that is not PyTorch's.
        exclude: which to leave out, in the same forms.
        generator: source of the seeds of the stream; by default the global one of the CPU. By
            default all ranks of an initialised ``torch.distributed`` group must call: they take
            rank 0's seeds. With a generator nothing is communicated.
        verbose: print the table of what is interpolated, and what was skipped and why.

    Returns:
        The model.

    Raises:
        ValueError: if there is nothing to interpolate; if a parameter carries a mask or another
            parametrization; or if ``initial`` is missing one, or holds it in another shape or
            with NaN or infinite entries. The model is unchanged.
        TypeError: if an argument is of another type, a parameter is sharded, or the model is
            wrapped in ``DistributedDataParallel`` already.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = interpolate_norms(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
        >>> model[1].weight = torch.tensor([2.0, 2.0])
        >>> _ = model(torch.zeros(1, 3))
        >>> alpha = model[1].parametrizations.weight[0].alpha
        >>> torch.equal(model[1].weight, torch.lerp(torch.ones(2), torch.full((2,), 2.0), alpha))
        True
        >>> model.eval()[1].weight.tolist()
        [2.0, 2.0]

    Source: *Find a Winning Sign*, section 3.3, equation 2 and Algorithm 1.
    """
    check_flag("per_layer", per_layer)
    check_flag("verbose", verbose)
    check_generator(generator)
    refuse_sharded(model, "interpolate_norms")
    found = find_norms(model, targets, exclude)
    fresh = {name: target for name, target in found.items() if target.interpolation is None}
    if fresh:
        refuse_ddp(model, "interpolate_norms")
    inner = unwrapped(model)
    check_has_values(fresh.values())
    start = {name: target.stored[0].detach() for name, target in fresh.items()}
    if initial is not None:
        values = weights_of(initial, "initial")
        check_tensors("initial", values, {name: now.shape for name, now in start.items()})
        for name in start:
            check_entries(f"initial {name!r}", values[name])
        start = {name: values[name].detach().to(now) for name, now in start.items()}
    attached = norm_interps(inner)
    alphas: dict[object, SharedAlpha] = {}
    if attached and not per_layer:
        alphas[inner] = attached[0].shared
    drawn: list[SharedAlpha] = []
    forms: dict[str, NormInterp] = {}
    with undrawn_on_error(generator):
        for name, target in fresh.items():
            layer = target.module if per_layer else inner
            if layer not in alphas:
                alphas[layer] = SharedAlpha(seeds=draw_seeds(generator)).to(start[name].device)
                drawn.append(alphas[layer])
            forms[name] = NormInterp(start[name], alphas[layer])
        for name, form in forms.items():
            attach_form(fresh[name], form)
        if fresh or _hooks(inner) not in ([], [inner]):
            draw_when_called(inner, drawn)
    if verbose:
        print(found)
    return model


def attached_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained value of every interpolated parameter by each of its names, not copied."""
    return {
        use.name: target.stored[0].detach()
        for target in all_targets(model)
        if target.interpolation is not None
        for use in target.uses
    }


def detach_norms(model: nn.Module) -> tuple[str, ...]:
    """Make every interpolated parameter plain again, in place, and return their plain names."""
    names = tuple(attached_norms(model))
    targets = [target for target in all_targets(model) if target.interpolation is not None]
    for target in targets:
        make_plain(target)
    for target in targets:
        for use in target.owners:
            forget_plain_checkpoints(use.module)
    for module in _hooks(model):
        _unhook(module)
    return names


class _DrawWhenCalled:
    """A forward pre-hook that draws new values before a training forward pass.

    It is an object, not a function, so that a deepcopy of the model gets one for the copy's values.
    """

    def __init__(self, interps: list[NormInterp]) -> None:
        self.interps = interps
        self.alphas = list(dict.fromkeys(interp.shared for interp in interps))

    def __call__(self, module: nn.Module, args: Any) -> None:
        if any(interp.training for interp in self.interps):
            for alpha in self.alphas:
                if alpha.redraw:
                    alpha.draw_()


def draw_when_called(model: nn.Module, drawn: list[SharedAlpha]) -> None:
    """Let the model draw instead of modules inside it; values drawn outside it stay as they are."""
    alphas = {*drawn, *(alpha for module in _hooks(model) for alpha in _unhook(module))}
    if alphas:
        inside = [interp for interp in norm_interps(model) if interp.shared in alphas]
        model.register_forward_pre_hook(_DrawWhenCalled(inside))


def _hooks(model: nn.Module) -> list[nn.Module]:
    """Return the modules that draw when they are called."""
    return [
        module
        for module in model.modules()
        if any(isinstance(hook, _DrawWhenCalled) for hook in module._forward_pre_hooks.values())
    ]


def _unhook(module: nn.Module) -> list[SharedAlpha]:
    """Stop a module from drawing, and return the values that it drew."""
    hooks = module._forward_pre_hooks
    ours = {key: hook for key, hook in hooks.items() if isinstance(hook, _DrawWhenCalled)}
    for key in ours:
        del hooks[key]
    return [alpha for hook in ours.values() for alpha in hook.alphas]
