"""The signs of a model over a training run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import (
    check_flag,
    check_mapping,
    check_names,
    check_shape,
    check_type,
)
from polarity._running import outside_inference_mode
from polarity.analysis.flip_report import FlipReport, FlipSeries
from polarity.analysis.flips import (
    count_flips,
    live_entries,
    of_all_ranks,
    signs_of,
    tracked_targets,
)
from polarity.analysis.tracker_record import START, Record, Signs, checked_record
from polarity.parametrizations.arithmetic import as_mask
from polarity.selection.ranks import Ranks
from polarity.targets.search import all_targets, find_targets
from polarity.targets.selectors import Selector
from polarity.targets.shards import ranks_of, ranks_of_model, refuse_sharded, together
from polarity.targets.target import Target
from polarity.tickets.packing import pack_signs, unpack_signs

__all__ = ["SignTracker"]


class SignTracker:
    """Record the signs of a model's weights at moments of its training.

    It stores signs, not weights, on the CPU: at most two bits per entry and moment. The moment of
    construction is recorded as ``"init"``. Weights are looked up by their plain names each time, so
    masks may be attached or change (AC/DC), and weights may be converted to Sign-In or merged while
    they are tracked.

    Flips are counted as by :func:`sign_flips`, through the mask that the model has at the time of
    the request: at the end of a run, through the final mask. An entry that was zero at a moment in
    between (pruned and grown again) is compared with the last sign it had. Of a weight with a soft
    threshold the signs are those before the threshold, which entries below it have too.

    Of a model that ``fully_shard`` has divided, before the tracker is made, each rank records the
    rows that it holds, and reports have the sums of all ranks. All ranks make each call.

    Args:
        model: the model, before or after anything was attached.
        targets: which weights, in the forms of :func:`find_targets`; by default the masked weights,
            or the prunable ones of a model without masks.
        exclude: which weights to leave out, in the same forms.
        keep_steps: with False the signs of past steps are not kept, and each step is counted once,
            through the mask of that moment. 100 steps of a dense ResNet-50 take 640 MB if kept, and
            6 MB if not.

    Raises:
        ValueError: if the model has no such weight.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> masks = {"weight": torch.tensor([[1, 1], [1, 0]])}
        >>> model = pol.mask_weights(nn.Linear(2, 2), masks=masks)
        >>> tracker = pol.SignTracker(model)
        >>> with torch.no_grad():
        ...     _ = model.parametrizations.weight.original.neg_()
        >>> tracker.step()
        >>> tracker.mark("warm-up")
        >>> tracker.flips("init", "warm-up").fraction, tracker.flips("warm-up").flipped
        (1.0, 0)
        >>> tracker.cumulative().cumulative
        (3,)

    Source: *Sign-In to the Lottery*, Figures 1, 5(a) and 8.
    """

    @outside_inference_mode
    def __init__(
        self,
        model: nn.Module,
        *,
        targets: Selector | None = None,
        exclude: Selector | None = None,
        keep_steps: bool = True,
    ) -> None:
        check_flag("keep_steps", keep_steps)
        chosen = targets is not None or exclude is not None
        found = find_targets(model, targets, exclude) if chosen else tracked_targets(model)
        self._model = model
        self._shapes = {name: tuple(target.shape_here) for name, target in found.items()}
        self._keep_steps = bool(keep_steps)
        start = self._signs()
        self._marks = {START: start}
        self._latest = start  # the last sign that every entry had, packed
        self._kept: list[Signs] = []
        self._counted: list[FlipReport] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Plain names of the weights that are tracked."""
        return tuple(self._shapes)

    @property
    def marks(self) -> tuple[str, ...]:
        """The marked moments, ``"init"`` first."""
        return tuple(self._marks)

    @outside_inference_mode
    def mark(self, moment: str) -> None:
        """Record the present signs under a name.

        Raises:
            ValueError: if the moment is already marked.
        """
        check_type("moment", moment, str, "a str: 'warm-up', for instance")
        if moment in self._marks:
            raise ValueError(f"moment={moment!r} is already marked: choose another name")
        self._marks[moment] = self._signs()

    @outside_inference_mode
    def signs(self, moment: str = START) -> dict[str, Tensor]:
        """Return the signs of a marked moment, of all entries and not of the survivors alone.

        This is what :func:`polarity.start_from_signs` takes.

        Returns:
            ``{plain name: int8 tensor}`` of −1, 0 and +1, on the CPU; 0 where the weight was zero,
            as it was outside the mask of that moment. Of a sharded model they are divided like it.

        Raises:
            ValueError: if the moment was not marked.

        Example:
            >>> from torch import nn
            >>> import polarity as pol
            >>> layer = nn.Linear(2, 1, bias=False)
            >>> _ = layer.weight.data.copy_(torch.tensor([[-0.5, 2.0]]))
            >>> SignTracker(layer).signs("init")
            {'weight': tensor([[-1,  1]], dtype=torch.int8)}
        """
        marked = self._marked("moment", moment)
        signs = {name: self._unpacked(marked, name) for name in self._shapes}
        if ranks_of_model(self._model) is None:
            return signs
        found = self._targets()
        return {
            n: found[n].as_given(each.to(found[n].pieces[0].device)) for n, each in signs.items()
        }

    @outside_inference_mode
    def step(self) -> None:
        """Record the present signs as the next step of the series; call it once per epoch."""
        signs = self._signs()
        if self._keep_steps:
            self._kept.append(signs)
            return
        report, self._latest = self._advance(self._latest, signs, self._masks())
        self._counted.append(report)

    def flips(
        self,
        start: str = START,
        end: str | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> FlipReport:
        """Compare two marked moments, through the mask.

        Args:
            start: the earlier moment.
            end: the later one; by default the present.
            masks: masks to use instead of the model's present ones; weights that they do not name
                are left out.

        Raises:
            ValueError: if a moment was not marked, or a mask has an unknown name or another shape.
        """
        before = self._marked("start", start)
        after = self._signs() if end is None else self._marked("end", end)
        return self._compare(before, after, self._masks(masks))

    def since(
        self, start: str = START, *, masks: Mapping[str, Tensor] | None = None
    ) -> tuple[FlipReport, ...]:
        """Compare every recorded step with a marked moment; arguments as for :meth:`flips`.

        Raises:
            ValueError: as :meth:`flips`, or if the steps were not kept (``keep_steps=False``).
        """
        before = self._marked("start", start)
        if not self._keep_steps:
            raise ValueError(
                "keep_steps=False, so the signs of past steps were not kept: "
                "SignTracker(model, keep_steps=True) keeps them"
            )
        looked_through = self._masks(masks)
        return tuple(self._compare(before, step, looked_through) for step in self._kept)

    def cumulative(self, *, masks: Mapping[str, Tensor] | None = None) -> FlipSeries:
        """Return the flips from step to step, beginning at ``"init"``.

        Args:
            masks: as for :meth:`flips`. With ``keep_steps=False`` each step was counted through the
                mask of that moment, and none can be given.

        Raises:
            ValueError: as :meth:`flips`, or if ``masks`` is given and the steps were not kept.
        """
        if not self._keep_steps:
            if masks is not None:
                raise ValueError(
                    f"masks={type(masks).__name__} with keep_steps=False, expected None: past "
                    "steps were counted by their own masks"
                )
            return FlipSeries(tuple(self._counted))
        looked_through, latest, reports = self._masks(masks), self._marks[START], []
        for step in self._kept:
            report, latest = self._advance(latest, step, looked_through)
            reports.append(report)
        return FlipSeries(tuple(reports))

    def state_dict(self) -> dict[str, Any]:
        """Return the whole record as tensors, strings and numbers.

        Raises:
            TypeError: if ``fully_shard`` has divided the model: no rank has the whole record.
        """
        refuse_sharded(self._model, "SignTracker.state_dict")
        record = Record(self._keep_steps, self._marks, self._latest, self._kept, self._counted)
        return record.state(self._shapes)

    @outside_inference_mode
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the record by one of :meth:`state_dict`.

        Raises:
            ValueError: if an entry is missing or unknown, or its weights have other names or
                shapes; nothing is changed.
            TypeError: if ``state`` is not a mapping, an entry is of another type, or
                ``fully_shard`` has divided the model.
        """
        refuse_sharded(self._model, "SignTracker.load_state_dict")
        record = checked_record(state, self.state_dict(), self._shapes)
        self._keep_steps = record.keep_steps
        self._marks, self._latest = record.marks, record.latest
        self._kept, self._counted = record.kept, record.counted

    def _signs(self) -> Signs:
        # Below a soft threshold the effective weight is zero, but not what is stored.
        return {n: _packed(signs_of(t.before_threshold)) for n, t in self._targets().items()}

    def _targets(self) -> dict[str, Target]:
        by_name = {use.name: each for each in all_targets(self._model) for use in each.uses}
        check_names("model", by_name, by_name, needed=self._shapes, what="tracked")
        for name, shape in self._shapes.items():
            check_shape("model", name, by_name[name].shape_here, shape, "tracked weight")
        return {name: by_name[name] for name in self._shapes}

    def _masks(self, masks: Mapping[str, Tensor] | None = None) -> Signs:
        return together(self._ranks(), lambda: self._masks_here(masks))

    def _masks_here(self, masks: Mapping[str, Tensor] | None) -> Signs:
        found = self._targets()
        if masks is None:
            return {name: live_entries(target).cpu() for name, target in found.items()}
        check_mapping("masks", masks, "{name: mask}")
        check_names("masks", masks, self._shapes, needed=(), what="tracked")
        pieces = {}
        for name, mask in masks.items():
            check_type(f"masks[{name!r}]", mask, Tensor, "a tensor")
            pieces[name] = found[name].piece(mask, "masks")
            check_shape("masks", name, pieces[name].shape, self._shapes[name], "tracked weight")
        return {name: _as_mask(name, pieces[name]) for name in self._shapes if name in masks}

    def _ranks(self) -> Ranks | None:
        """Return the ranks of a sharded model, None if it is whole."""
        return ranks_of(target.stored[0] for target in self._targets().values())

    def _marked(self, role: str, moment: str) -> Signs:
        check_type(role, moment, str, "a marked moment: 'init', for instance")
        if moment not in self._marks:
            raise ValueError(f"{role}={moment!r} was not marked, expected one of {self.marks}")
        return self._marks[moment]

    def _unpacked(self, signs: Signs, name: str) -> Tensor:
        return unpack_signs(signs[name], self._shapes[name])[0]

    def _compare(self, before: Signs, after: Signs, masks: Signs) -> FlipReport:
        rows = [
            count_flips(name, self._unpacked(before, name), self._unpacked(after, name), mask)
            for name, mask in masks.items()
        ]
        return of_all_ranks(rows, self._ranks())

    def _advance(self, latest: Signs, signs: Signs, masks: Signs) -> tuple[FlipReport, Signs]:
        """Count the flips of a step, and return the last sign that every entry had."""
        report = self._compare(latest, signs, masks)
        carried = {}
        for name in self._shapes:
            now = self._unpacked(signs, name)
            carried[name] = _packed(torch.where(now != 0, now, self._unpacked(latest, name)))
        return report, carried


def _as_mask(name: str, mask: Tensor) -> Tensor:
    """Return a mask as bools on the CPU, with its name in the error if it is none."""
    try:
        return as_mask(mask).cpu()
    except ValueError as error:
        raise ValueError(f"masks[{name!r}]: {error}") from None


def _packed(signs: Tensor) -> Tensor:
    return pack_signs(signs, signs != 0)
