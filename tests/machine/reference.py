"""The slow reference: plain tensors, masks multiplied in by hand, and torch's own optimizers.

Nothing of polarity is used. A plain twin of the model computes with weights that are given to it
by ``functional_call``; what those weights are made of is written down here.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.machine import rules
from tests.machine.kinds import Setting

# Whether pruning zeroes pending gradients: from the change on that brings pol.reinitialize.
GRADIENTS_ZEROED = False

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass
class Weight:
    """One parameter of the plain model, and what it is made of now.

    ``form`` is plain, masked, sign_in or norm. ``rounded`` says that what is stored was computed
    by arithmetic in another order, so that the model's values are compared to within a few units
    of the last place and then adopted. ``compact`` says that the model stores survivors alone;
    the weight here stays dense.
    """

    names: tuple[str, ...]
    leaves: tuple[nn.Parameter, ...]
    form: str = "plain"
    mask: Tensor | None = None
    enforce: bool = True
    in_step: bool = False
    beta: float = 1.0
    initial: Tensor | None = None
    rounded: bool = False
    compact: bool = False
    multiplies: bool = False

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def masked(self) -> bool:
        return self.form in ("masked", "sign_in")

    @property
    def live(self) -> Tensor:
        return self.mask.bool() if self.enforce else torch.ones_like(self.mask, dtype=torch.bool)

    @property
    def product(self) -> Tensor:
        """What the mask is multiplied to, with a graph."""
        return self.leaves[0] if len(self.leaves) == 1 else self.leaves[0] * self.leaves[1]

    @property
    def effective(self) -> Tensor:
        """The weight that the layer computes with; the trained value of a norm."""
        return self.product * self.mask if self.masked and self.enforce else self.product

    def keys(self, name: str) -> list[str]:
        """Return the keys of what is stored, in a ``state_dict``."""
        if self.form == "plain":
            return [name]
        ends = ("original0", "original1") if self.form == "sign_in" else ("original",)
        return [f"{inside(name)}{end}" for end in ends]

    def buffer_keys(self, name: str) -> list[str]:
        ends = {
            "plain": (),
            "masked": ("mask", "_extra_state"),
            "sign_in": ("mask", "_extra_state", "beta"),
            "norm": ("initial", "shared.alpha", "shared.stream"),
        }[self.form]
        return [f"{inside(name)}0.{end}" for end in ends]


@dataclass
class Moment:
    """A captured moment: values by name, buffers, states, and what was stored under which keys."""

    values: dict[str, Tensor]
    buffers: dict[str, Tensor]
    optimizers: list[Any]
    schedules: list[Any]
    layout: list[str] = field(default_factory=list)


def inside(name: str) -> str:
    path, dot, last = name.rpartition(".")
    return f"{path}{dot}parametrizations.{last}."


def same_shape(value: Any, leaf: Tensor) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == leaf.shape


class Reference:
    """The plain twin of a model, its weights by plain name, and its optimizers."""

    def __init__(self, plain: nn.Module, setting: Setting) -> None:
        self.twin, self.setting = plain, setting
        held: dict[int, list[str]] = {}
        parameters = dict(plain.named_parameters(remove_duplicate=False))
        for name, parameter in parameters.items():
            held.setdefault(id(parameter), []).append(name)
        self.weights = {
            names[0]: Weight(tuple(names), (_leaf(parameters[names[0]]),))
            for names in held.values()
        }
        for weight in self.weights.values():
            weight.leaves[0].requires_grad_(parameters[weight.name].requires_grad)
        self.stream: rules.Stream | None = None
        self.build_optimizers()

    def build_optimizers(self) -> None:
        self.optimizers = self.setting.build(self.leaves())
        schedule = self.setting.schedule
        self.schedules = [] if schedule is None else [schedule(each) for each in self.optimizers]

    def leaves(self) -> list[tuple[str, nn.Parameter]]:
        """Return what is stored under its keys, in the plain model's order."""
        pairs = [(w.keys(w.name), w.leaves) for w in self.weights.values()]
        return [each for keys, leaves in pairs for each in zip(keys, leaves, strict=True)]

    def masked(self) -> dict[str, Weight]:
        return {name: weight for name, weight in self.weights.items() if weight.masked}

    def norms(self) -> dict[str, Weight]:
        return {name: weight for name, weight in self.weights.items() if weight.form == "norm"}

    def norm_names(self) -> list[str]:
        """Return the plain parameters of normalisation layers that can be interpolated."""
        return [
            name
            for name, weight in self.weights.items()
            if weight.form == "plain"
            and isinstance(self.twin.get_submodule(name.rpartition(".")[0]), _NORMS)
            and weight.leaves[0].requires_grad
        ]

    # What the model computes.

    def values(self) -> dict[str, Tensor]:
        """Return what every layer computes with in the mode it is in, by first plain name."""
        found = {}
        for name, weight in self.weights.items():
            found[name] = weight.effective
            if weight.form == "norm" and self.twin.get_submodule(name.rpartition(".")[0]).training:
                alpha = torch.tensor(self.stream.alpha).to(weight.leaves[0].dtype)
                found[name] = torch.lerp(weight.initial, weight.leaves[0], alpha)
        return found

    def __call__(self, *inputs: Tensor) -> Tensor:
        paths = {name.rpartition(".")[0] for name in self.norms()}
        training = any(self.twin.get_submodule(path).training for path in paths)
        if training and self.stream is not None and self.stream.redraw:
            self.stream.draw()
        return functional_call(self.twin, self.values(), inputs, tie_weights=True)

    # What an optimizer remembers.

    def state(self, leaf: Tensor) -> dict[str, Any]:
        for each in self.optimizers:
            if leaf in each.state:
                return each.state[leaf]
        return {}

    def forget_pruned(self, weights: Iterable[Weight]) -> None:
        """Zero what the optimizers remember of pruned entries."""
        for weight in weights:
            for leaf in weight.leaves:
                for value in self.state(leaf).values():
                    if same_shape(value, leaf):
                        value[weight.mask == 0] = 0

    def replace(self, weight: Weight, new: tuple[nn.Parameter, ...], states: list[Any]) -> None:
        """Put new leaves into the optimizers at the place of the old ones."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                places = [i for i, p in enumerate(group["params"])
                          if any(p is leaf for leaf in weight.leaves)]  # fmt: skip
                if places:
                    group["params"][places[0] : places[-1] + 1] = new
                    for leaf in weight.leaves:
                        optimizer.state.pop(leaf, None)
                    for leaf, state in zip(new, states, strict=True):
                        if state:
                            optimizer.state[leaf] = state
        weight.leaves = new

    # Masks.

    @torch.no_grad()
    def attach(self, names: Iterable[str]) -> None:
        for name in names:
            weight = self.weights[name]
            if weight.form == "plain":
                weight.form, weight.enforce = "masked", True
                weight.mask = torch.ones_like(weight.leaves[0])

    @torch.no_grad()
    def clear(self, weight: Weight) -> None:
        """Zero what is stored outside the mask, and the pending gradient there."""
        for leaf in weight.leaves:
            leaf[weight.mask == 0] = 0
            if leaf.grad is not None and GRADIENTS_ZEROED:
                leaf.grad[weight.mask == 0] = 0

    @torch.no_grad()
    def install(self, masks: Mapping[str, Tensor]) -> None:
        """Install masks as ``load_masks`` does: an entry that becomes live starts at zero."""
        self.attach(masks)
        for name, mask in masks.items():
            weight = self.weights[name]
            born = mask & (weight.mask == 0) if weight.enforce else torch.zeros_like(mask)
            weight.mask.copy_(mask)
            weight.enforce = True
            self.clear(weight)
            for leaf, start in zip(weight.leaves, (weight.beta**0.5, 0.0), strict=False):
                leaf[born] = start if weight.form == "sign_in" else 0.0

    @torch.no_grad()
    def prune(self, kept: Mapping[str, Tensor], values: Mapping[str, Tensor] | None = None) -> None:
        self.attach(kept)
        for name, mask in kept.items():
            weight = self.weights[name]
            weight.mask.copy_(mask)
            weight.enforce = True
            if values is not None:
                self.write(weight, values[name])
            self.clear(weight)

    @torch.no_grad()
    def write(self, weight: Weight, value: Tensor) -> None:
        """Set the effective weight; outside an enforced mask nothing is stored."""
        value = value.to(weight.leaves[0].dtype)
        if weight.masked and weight.enforce:
            value = value.masked_fill(weight.mask == 0, 0)
        if weight.form == "sign_in":
            weight.rounded = True
            m, v = rules.factors(value, weight.beta)
            if weight.enforce:
                m[weight.mask == 0] = 0
            weight.leaves[0].copy_(m)
            weight.leaves[1].copy_(v)
        else:
            weight.leaves[0].copy_(value)

    def kept(
        self,
        scores: Mapping[str, Tensor],
        amount: float | None,
        density: float | Mapping[str, float] | None,
        scope: str,
        seed: int | None = None,
    ) -> rules.Masks:
        """Return which entries of the named weights stay; with a seed it decides ties."""
        live = {}
        for name in scores:
            weight = self.weights[name]
            everything = torch.ones_like(weight.leaves[0], dtype=torch.bool)
            live[name] = weight.live if weight.masked else everything
        count = {name: int(each.sum()) for name, each in live.items()}
        size = {name: each.numel() for name, each in live.items()}
        if scope == "global" and not isinstance(density, Mapping):
            keep: Any = rules.how_many(sum(count.values()), sum(size.values()), amount, density)
        else:
            wanted = density if isinstance(density, Mapping) else dict.fromkeys(live, density)
            keep = {n: rules.how_many(count[n], size[n], amount, wanted[n]) for n in live}
        return rules.keep_highest(scores, live, keep, seed)

    # Moments.

    def capture(self) -> Moment:
        return Moment(
            {name: w.effective.detach().clone() for name, w in self.weights.items()},
            {name: buffer.clone() for name, buffer in self.twin.named_buffers()},
            [copy.deepcopy(each.state_dict()) for each in self.optimizers],
            [copy.deepcopy(each.state_dict()) for each in self.schedules],
            [key for key, _ in self.leaves()],
        )

    @torch.no_grad()
    def restore(self, moment: Moment, only: Callable[[Weight], bool], buffers: bool) -> None:
        for name, weight in self.weights.items():
            if only(weight):
                self.write(weight, moment.values[name])
        for name, buffer in self.twin.named_buffers() if buffers else ():
            buffer.copy_(moment.buffers[name])

    def restore_schedule(self, moment: Moment) -> None:
        for optimizer, state in zip(self.optimizers, moment.optimizers, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
        for schedule, state in zip(self.schedules, moment.schedules, strict=True):
            schedule.load_state_dict(copy.deepcopy(state))

    # Signs.

    @torch.no_grad()
    def sign(
        self,
        strategy: str,
        init: Mapping[str, Tensor],
        trained: Mapping[str, Tensor] | None,
        perturbations: list[tuple[str, float]],
        scope: str,
        phi: float,
        generator: torch.Generator | None,
    ) -> None:
        """Set every survivor to ±σ, σ being the deviation of the whole initial tensor."""
        masked = self.masked()
        masks = {name: weight.mask.bool() for name, weight in masked.items()}
        now = {name: w.effective.detach() for name, w in masked.items()}
        now = now if trained is None else {name: trained[name] for name in masked}
        signs = rules.references(strategy, 0.7, phi, init, now, masks, generator)
        signs = rules.perturbed(signs, perturbations, scope, now, masks, generator)
        for name, weight in masked.items():
            sigma = float(np.std(rules.numbers(init[name])))
            new = now[name].clone() if strategy == "standard" else torch.zeros_like(weight.mask)
            new[masks[name]] = (torch.from_numpy(signs[name]).double() * sigma).to(new.dtype)
            weight.enforce = strategy != "standard"
            weight.rounded = True
            self.write(weight, new)
            for leaf in weight.leaves if weight.in_step and weight.enforce else ():
                leaf[weight.mask == 0] = 0


def _leaf(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone())
