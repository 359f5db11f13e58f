"""Capture a moment of a training run, and rewind to it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from typing_extensions import Self

from polarity._checks import check_choice, check_mapping, check_type
from polarity._running import outside_inference_mode
from polarity.optimizers.divided import divided_state
from polarity.optimizers.fitting import check_optimizer_fits, check_scheduler_fits
from polarity.optimizers.given import (
    Optimizers,
    Schedulers,
    as_optimizers,
    as_schedulers,
    described,
)
from polarity.rewind.file import read_point, write_point
from polarity.rewind.weights import Only, check_weights, staged_weights
from polarity.targets.dense_leaves import dense_leaves, on_dense_leaves
from polarity.targets.search import all_targets, plain_buffers
from polarity.targets.shards import ranks_of_model, together
from polarity.targets.target import check_has_values
from polarity.targets.writing import write_all

__all__ = ["RewindPoint", "weights_of"]

StateDict: TypeAlias = dict[str, Any]
States: TypeAlias = StateDict | list[StateDict]


@dataclass(frozen=True, eq=False)
class RewindPoint:
    """Weights, optimizer and schedule at one moment.

    IMP rewinds the weights and the schedule to the initial point; weight rewinding is IMP with a
    point captured after some warm-up; learning-rate rewinding (LRR) restores the schedule alone.

    Attributes:
        weights: copies of every parameter and buffer of the model under its plain name (the name
            it has when nothing is attached), with zeros outside its mask. Of a model that
            ``fully_shard`` has divided they are DTensors, divided like it; a point that was
            captured before that fits too, each rank takes its rows.
        optimizer: the optimizer's ``state_dict``, a list of them if a list was captured, or None.
        scheduler: the same of the learning-rate scheduler.

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

        A model with two optimizers, Muon for its matrices and AdamW for the rest, or those of the
        two halves of a GAN:

        >>> halves = [torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()]
        >>> start = pol.RewindPoint.capture(model, halves)
        >>> report = pol.imp_prune(model, 0.5, rewind=start, optimizer=halves)

    Source: Frankle & Carbin (2019) for IMP, Frankle et al. (2020) for weight rewinding, Renda et
    al. (2020) for learning-rate rewinding.
    """

    weights: dict[str, Tensor]
    optimizer: States | None = None
    scheduler: States | None = None

    def __post_init__(self) -> None:
        check_mapping("weights", self.weights)
        for name, value in self.weights.items():
            check_type(f"weights[{name!r}]", value, Tensor, "a tensor")
        for role, held in (("optimizer", self.optimizer), ("scheduler", self.scheduler)):
            if held is not None and not isinstance(held, list):
                check_mapping(role, held, "a state_dict, or a list of them")
            for place, state in enumerate(held if isinstance(held, list) else []):
                check_mapping(f"{role}[{place}]", state, "a state_dict")

    @classmethod
    @outside_inference_mode
    def capture(
        cls,
        model: nn.Module,
        optimizer: Optimizers | None = None,
        scheduler: Schedulers | None = None,
    ) -> Self:
        """Copy the state of a model and, if given, of its optimizer and scheduler.

        Args:
            model: any module, before or after something was attached.
            optimizer: any ``torch.optim`` optimizer, or a list of them. The state of a
                ``ZeroRedundancyOptimizer`` is captured on the rank that
                ``consolidate_state_dict(to=rank)`` has just gathered it on; for a point on each
                rank, gather and capture in turn.
            scheduler: any learning-rate scheduler, or a list of them.

        Raises:
            ValueError: if a parameter has no value yet (lazy, or on the meta device).
            TypeError: if an argument is of another type.
        """
        optimizers, schedulers = as_optimizers(optimizer), as_schedulers(scheduler)
        weights: dict[str, Tensor] = {}
        for target in all_targets(model):
            if is_lazy(target.stored[0]):
                raise ValueError(f"{target.name} is lazy: run one batch through the model first")
            check_has_values([target])
            value = target.as_given(target.weight.clone())
            weights |= {use.name: value for use in target.uses}
        weights |= {name: value.clone() for name, value in plain_buffers(model).items()}
        with dense_leaves(model, optimizers, "capture", writes=False):
            states = _states(optimizer, optimizers)
        return cls(weights, states, _states(scheduler, schedulers))

    @outside_inference_mode
    @on_dense_leaves
    def restore_weights(self, model: nn.Module, *, only: Only = "all") -> nn.Module:
        """Set the model's parameters and buffers to the captured ones, in place.

        Survivors of a masked weight take their old values, pruned entries stay zero. Values are
        converted to the model's dtypes and devices.

        Args:
            model: the model that was captured, or one with the same plain names and shapes.
            only: ``"all"``; ``"masked"``, the weights that carry a mask; or ``"unmasked"``,
                everything else (biases, normalisation, running statistics).

        Returns:
            The model.

        Raises:
            ValueError: if the model and the point differ in a name, a shape or a kind of numbers;
                if a captured parameter is NaN or infinite; or if a weight has another
                parametrization that cannot be inverted. Nothing is changed.
        """
        check_choice("only", only, ("all", "masked", "unmasked"))
        together(ranks_of_model(model), lambda: self.check(model), only)
        write_all(self.staged(model, only))
        return model

    @outside_inference_mode
    def restore_schedule(
        self, optimizer: Optimizers | None = None, scheduler: Schedulers | None = None
    ) -> None:
        """Set the optimizer (learning rate, momentum, …) and the scheduler to the captured state.

        Args:
            optimizer: the optimizer that was captured, or one of its class with the same parameter
                groups; a list if a list was captured.
            scheduler: likewise.

        Raises:
            ValueError: if one is given and this point holds no state of it, or state of another
                class, other options, other keys or other shapes; nothing is changed.
            TypeError: if an argument is of another type.
        """
        self.check_schedule(optimizer, scheduler)
        self.staged_schedule(optimizer, scheduler)()

    def save(self, path: str | Path) -> None:
        """Write the point to a safetensors file, so that it outlives the process.

        Tensors are entries of the file, a tied one once; everything else is JSON in its metadata.
        The file is written under another name first: an earlier one stays until it is complete.
        Of a sharded model all ranks call: the first writes, and receives the rows of the others
        piece by piece, so that the file is that of a whole model.

        Args:
            path: the file, conventionally ``*.safetensors``.

        Raises:
            ImportError: if safetensors is not installed.
            TypeError: if the point holds what a file cannot (a function in a scheduler's state, for
                instance); its key is named.
            FileNotFoundError: if the folder does not exist.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from torch import nn
            >>> import polarity as pol
            >>> model = nn.Linear(3, 2)
            >>> start = pol.RewindPoint.capture(model, torch.optim.Adam(model.parameters()))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     start.save(f"{folder}/start.safetensors")
            ...     again = pol.RewindPoint.load(f"{folder}/start.safetensors")
            >>> torch.equal(again.weights["weight"], start.weights["weight"])
            True
            >>> again.optimizer == start.optimizer
            True
        """
        write_point(path, self.weights, self.optimizer, self.scheduler)

    @classmethod
    @outside_inference_mode
    def load(cls, path: str | Path) -> Self:
        """Read a file of :meth:`save`, without executing anything in it.

        The tensors are on the CPU, and whole: a model that ``fully_shard`` has divided takes its
        rows of them, and so does its optimizer. Whether they fit a model, an optimizer and a
        scheduler, and are finite, is checked when the point is used.

        Args:
            path: the file.

        Returns:
            The point, equal to the saved one bit for bit.

        Raises:
            ImportError: if safetensors is not installed.
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no rewind point, is damaged, or of a version unknown here.
        """
        return cls(*read_point(path))

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if this point does not fit the model, or has parameters not finite."""
        check_weights(self.weights, model)

    def check_schedule(
        self,
        optimizer: Optimizers | None = None,
        scheduler: Schedulers | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        """Raise ValueError if a given optimizer or scheduler has no fitting state here.

        Args:
            optimizer: as for :meth:`restore_schedule`.
            scheduler: as for :meth:`restore_schedule`.
            names: plain names of the model's parameters by their ids, for errors.
        """
        for each, role, held in self._pairs("optimizer", as_optimizers(optimizer)):
            check_optimizer_fits(role, each, held, names)
        for each, role, held in self._pairs("scheduler", as_schedulers(scheduler)):
            check_scheduler_fits(role, each, held)

    def staged(
        self, model: nn.Module, only: Only = "all", pruned: Sequence[str] = ()
    ) -> list[tuple[Tensor, Tensor]]:
        """Return what :meth:`restore_weights` would write, see :func:`staged_weights`."""
        return staged_weights(self.weights, model, only, pruned)

    def staged_schedule(
        self, optimizer: Optimizers | None = None, scheduler: Schedulers | None = None
    ) -> Callable[[], None]:
        """Copy the states that are to be restored, and return the function that restores them."""
        held = [
            (each, copy.deepcopy(divided_state(each, state) if role == "optimizer" else state))
            for role, given in (
                ("optimizer", as_optimizers(optimizer)),
                ("scheduler", as_schedulers(scheduler)),
            )
            for each, _, state in self._pairs(role, given)
        ]

        def restore() -> None:
            for each, state in held:
                each.load_state_dict(state)

        return restore

    def _pairs(self, role: str, given: Sequence[Any]) -> list[tuple[Any, str, StateDict]]:
        """Return each of the given with its name in errors and its captured state."""
        held = self.optimizer if role == "optimizer" else self.scheduler
        if not given:
            return []
        if held is None:
            raise ValueError(
                f"{role}={described(given)} given, but the rewind point holds none: "
                f"capture it with RewindPoint.capture(model, {role}=…)"
            )
        states = held if isinstance(held, list) else [held]
        if len(states) != len(given):
            raise ValueError(
                f"{role}={described(given)} given, but the rewind point holds {len(states)}, "
                "expected the same number, in the order of the capture"
            )
        roles = [role] if len(given) == 1 else [f"{role}[{place}]" for place in range(len(given))]
        return list(zip(given, roles, states, strict=True))


def _states(given: Any, each: Sequence[Any]) -> States | None:
    """Return copies of the states, in a list where a list was given."""
    states = [copy.deepcopy(one.state_dict()) for one in each]
    if given is None:
        return None
    return states if isinstance(given, (list, tuple)) else states[0]


def weights_of(
    given: "RewindPoint | Mapping[str, Tensor]", parameter: str = "init"
) -> Mapping[str, Tensor]:
    """Return ``{name: tensor}`` of a rewind point or of a plain mapping.

    Raises:
        TypeError: if it is neither; ``parameter`` is its name in the error.
    """
    expected = "a RewindPoint or {name: tensor}: RewindPoint.capture(model), for instance"
    check_type(parameter, given, (RewindPoint, Mapping), expected)
    return given.weights if isinstance(given, RewindPoint) else given
