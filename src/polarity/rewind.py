"""Capture a moment of a training run, and rewind to it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from typing_extensions import Self

from polarity._checks import check_choice, check_names, check_optimizer, check_shape
from polarity._running import outside_inference_mode
from polarity.targets.search import all_targets, plain_buffers
from polarity.targets.target import check_has_values

__all__ = ["RewindPoint"]

StateDict = dict[str, Any]


@dataclass(frozen=True, eq=False)
class RewindPoint:
    """Weights, optimizer and schedule at one moment.

    IMP rewinds the weights and the schedule to the initial point; weight rewinding is IMP with a
    point captured after some warm-up; learning-rate rewinding (LRR) restores the schedule alone.

    Attributes:
        weights: copies of every parameter and buffer of the model under its plain name (the name
            it has when nothing is attached), with zeros outside its mask.
        optimizer: the optimizer's ``state_dict``, or None.
        scheduler: the learning-rate scheduler's ``state_dict``, or None.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(3, 2))
        >>> start = pol.RewindPoint.capture(model)
        >>> sorted(start.weights)
        ['bias', 'weight']
        >>> with torch.no_grad():
        ...     _ = model.bias.add_(1)
        >>> _ = start.restore_weights(model)
        >>> torch.equal(model.bias, start.weights["bias"])
        True

    Source: Frankle & Carbin (2019) for IMP, Frankle et al. (2020) for weight rewinding, Renda et
    al. (2020) for learning-rate rewinding.
    """

    weights: dict[str, Tensor]
    optimizer: StateDict | None = None
    scheduler: StateDict | None = None

    @classmethod
    @outside_inference_mode
    def capture(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> Self:
        """Copy the state of a model and, if given, of its optimizer and scheduler.

        Args:
            model: any module, before or after something was attached.
            optimizer: any ``torch.optim`` optimizer.
            scheduler: any learning-rate scheduler.

        Raises:
            ValueError: if a parameter has no value yet (lazy, or on the meta device).
        """
        if optimizer is not None:
            check_optimizer(optimizer)
        weights: dict[str, Tensor] = {}
        for target in all_targets(model):
            if is_lazy(target.stored[0]):
                raise ValueError(f"{target.name} is lazy: run one batch through the model first")
            check_has_values([target])
            value = target.weight.clone()
            weights |= {use.name: value for use in target.uses}
        weights |= {name: value.clone() for name, value in plain_buffers(model).items()}
        return cls(
            weights,
            copy.deepcopy(optimizer.state_dict()) if optimizer is not None else None,
            copy.deepcopy(scheduler.state_dict()) if scheduler is not None else None,
        )

    @outside_inference_mode
    @torch.no_grad()
    def restore_weights(
        self, model: nn.Module, *, only: Literal["all", "masked", "unmasked"] = "all"
    ) -> nn.Module:
        """Set the model's parameters and buffers to the captured ones, in place.

        Survivors of a masked weight take their old values, pruned entries stay zero.

        Args:
            model: the model that was captured, or one with the same plain names and shapes.
            only: ``"all"``; ``"masked"``, the weights that carry a mask; or ``"unmasked"``,
                everything else (biases, normalisation, running statistics).

        Returns:
            The model.

        Raises:
            ValueError: if the model and the point differ in a name or a shape; nothing is changed.
        """
        check_choice("only", only, ("all", "masked", "unmasked"))
        self.check(model)
        for target in all_targets(model):
            if only == "all" or (only == "masked") == (target.masking is not None):
                target.write(self.weights[target.name].to(target.stored[0].device))
        if only != "masked":
            for name, value in plain_buffers(model).items():
                value.copy_(self.weights[name])
        return model

    @outside_inference_mode
    def restore_schedule(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> None:
        """Set the optimizer (learning rate, momentum, …) and the scheduler to the captured state.

        Args:
            optimizer: the optimizer that was captured, or one with the same parameter groups.
            scheduler: likewise.

        Raises:
            ValueError: if one is given and this point holds no state of it; nothing is changed.
        """
        self.check_schedule(optimizer, scheduler)
        if optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(self.optimizer))  # type: ignore[arg-type]
        if scheduler is not None:
            scheduler.load_state_dict(copy.deepcopy(self.scheduler))  # type: ignore[arg-type]

    def check_schedule(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> None:
        """Raise ValueError if a given optimizer or scheduler has no fitting state here."""
        if optimizer is not None:
            check_optimizer(optimizer)
        for role, given, held in (
            ("optimizer", optimizer, self.optimizer),
            ("scheduler", scheduler, self.scheduler),
        ):
            if given is not None and held is None:
                raise ValueError(
                    f"{role}={type(given).__name__} given, but the rewind point holds none: "
                    f"capture it with RewindPoint.capture(model, {role}=…)"
                )
        if optimizer is None or self.optimizer is None:
            return
        held_sizes = [len(group["params"]) for group in self.optimizer["param_groups"]]
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if sizes != held_sizes:
            raise ValueError(
                f"optimizer has parameter groups of {sizes}, the rewind point's had {held_sizes}"
            )

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the model and this point differ in a name or a shape."""
        targets = all_targets(model)
        shapes = {use.name: target.shape for target in targets for use in target.uses}
        shapes |= {name: value.shape for name, value in plain_buffers(model).items()}
        check_names("the rewind point", self.weights, shapes)
        for name, shape in shapes.items():
            check_shape("the rewind point", name, self.weights[name].shape, shape)


def weights_of(
    given: "RewindPoint | Mapping[str, Tensor]", parameter: str = "init"
) -> Mapping[str, Tensor]:
    """Return ``{name: tensor}`` of a rewind point or of a plain mapping.

    Raises:
        TypeError: if it is neither; ``parameter`` is its name in the error.
    """
    if isinstance(given, RewindPoint):
        return given.weights
    if isinstance(given, Mapping):
        return given
    raise TypeError(
        f"{parameter} must be a RewindPoint or {{name: tensor}}, got {type(given).__name__}"
    )
