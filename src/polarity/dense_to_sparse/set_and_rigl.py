"""Sparse from the start: SET, which grows at random, and RigL, which grows by the gradient."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from polarity._bits.random import words_in
from polarity._checks import check_flag, check_fraction, check_integer
from polarity.dense_to_sparse.exchange import SecondMoment
from polarity.dense_to_sparse.rewiring import DropAndGrow
from polarity.dense_to_sparse.schedule import Every
from polarity.optimizers.given import Optimizers
from polarity.selection.ties import Ties

__all__ = ["SET", "RigL", "cosine", "uniform"]


class SET(DropAndGrow):
    r"""Sparse evolutionary training: drop the smallest survivors, grow others at random.

    At each update every weight loses the fraction of its survivors that is smallest in magnitude,
    and as many entries grow, uniformly at random among those outside the mask after the drop, see
    :func:`drop_and_grow`. The gradient step is made as always, and the update follows it. Newborn
    entries are zero, with zero optimizer state; so are dropped ones. One that is dropped and grown
    at once keeps its value and its state.

    Call :meth:`step` after each ``optimizer.step()``. Random growth depends on a seed that is drawn
    once, here, on the step, on the weight's name and on the position of the entry.

    Args:
        model: a model with masks; plain or dense with ``densities``. The densities of its weights
            stay as they are. Masks that are only remembered are applied.
        optimizer: the optimizer that trains it, or a sequence of them; the steps of the first are
            counted. Masked weights that none of them holds keep their masks.
        every: how many steps from one update to the next.
        end: the last step at which an update can be made; None for no end.
        begin: the step of the first update; with 0 it is step ``every``.
        fraction: of the survivors of each weight, exchanged at an update.
        densities: ``{plain name: density}``, of which random masks are drawn first, such as
            ``pol.densities.erk(model, 0.1)``. By default the model keeps its masks.
        ties: which of equal entries survive, ``"index"`` or ``"random"``.
        second_moment: of newborn entries under Adam: ``"zero"``, as published, or ``"keep_mean"``,
            see :class:`RigL`.
        generator: source of the seeds of ``densities`` and of growth; by default the global one of
            the CPU.

    Attributes:
        report: the :class:`UpdateReport` of the last update.

    Raises:
        ValueError: if an argument is out of range; if the optimizers train no weight that can be
            masked; or if no entry is pruned and no ``densities`` are given. Nothing is changed.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(8, 8)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> schedule = pol.dense_to_sparse.SET(
        ...     model, sgd, every=2, densities=pol.densities.uniform(model, 0.25), fraction=0.5
        ... )
        >>> for _ in range(2):
        ...     sgd.zero_grad()
        ...     model(torch.ones(1, 8)).square().sum().backward()
        ...     sgd.step()
        ...     report = schedule.step()
        >>> report.survivors, report.density
        (16, 0.25)

    Source: Mocanu et al. (2018); ``SparseSETOptimizer`` of google-research/rigl for the defaults
    and the order of operations. That code adds noise of 1e-5 to magnitudes; this does not.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        every: int,
        end: int | None = None,
        begin: int = 0,
        fraction: float = 0.1,
        densities: Mapping[str, float] | None = None,
        ties: Ties = "index",
        second_moment: SecondMoment = "zero",
        generator: torch.Generator | None = None,
    ) -> None:
        check_fraction("fraction", fraction)
        super().__init__(
            model,
            optimizer,
            Every(every, begin, end),
            lambda step: float(fraction),
            uniform,
            replace_step=False,
            densities=densities,
            ties=ties,
            second_moment=second_moment,
            generator=generator,
        )


class RigL(DropAndGrow):
    r"""The rigged lottery: drop the smallest survivors, grow where the gradient is largest.

    At the update of step :math:`t` every weight loses the fraction

    .. math:: f_t = \frac{f}{2}\Bigl(1 + \cos\frac{\pi \min(t, D)}{D}\Bigr), \quad
        D = \mathrm{end} - \mathrm{begin},

    of its survivors, smallest magnitude first, and as many entries grow, of largest gradient
    magnitude among those outside the mask after the drop, see :func:`drop_and_grow`. Newborn
    entries are zero, with zero optimizer state; so are dropped ones. One that is dropped and grown
    at once keeps its value and its state.

    Call :meth:`step` after each ``optimizer.step()``. After the step before an update it opens the
    masks: they are remembered, not applied, and what is stored outside them is zero. The network
    computes the same, and backward leaves dense gradients, through DDP, mixed precision and
    accumulation. The optimizer's step begins by taking the growth scores from them and masking them
    again, after its closure if it has one. Other steps cost nothing. Call :meth:`collect` after
    ``backward`` if you clip gradients by norm and ``replace_step`` is False, or if you move the
    weights along the gradients for a second pass (SAM).

    While the masks are open, other calls take every entry for a trained one
    (:func:`polarity.sharpness`, for instance): measure right after an update. They are open in a
    copy or a checkpoint that is made then, too. A schedule applies them where it goes on with such
    a model; without one, ``pol.load_masks(copy, pol.masks(copy))`` does.

    Under Adam a newborn entry has zero second moment and the step count of its weight: with the
    default betas it moves by 3.2 times the learning rate in its first step, and by up to 6.6 times
    in the following ones. ``second_moment="keep_mean"`` starts it at the mean of the survivors.

    On a Sign-In weight the gradient is that of the effective weight, the same as without the
    product, and magnitudes are :math:`|m v|`. Newborn entries have :math:`m = \sqrt\beta, v = 0`.

    Args:
        model: a model with masks; plain or dense with ``densities``. The densities of its weights
            stay as they are. Masks that are only remembered are applied.
        optimizer: the optimizer that trains it, or a sequence of them; the steps of the first are
            counted. Masked weights that none of them holds keep their masks.
        every: how many steps from one update to the next, :math:`\Delta T`.
        end: the last step at which an update can be made, :math:`T_\mathrm{end}`. The fraction is
            zero from :math:`D` on.
        begin: the step of the first update; with 0 it is step ``every``.
        fraction: :math:`f`, of the survivors of each weight.
        replace_step: whether an update takes the place of the gradient step, as published: the
            optimizer then finds no gradients, those of biases and normalisation included, and
            changes nothing. Such a step counts like any other.
        densities: ``{plain name: density}``, of which random masks are drawn first, such as
            ``pol.densities.erk(model, 0.1)``. By default the model keeps its masks.
        ties: which of equal entries survive and grow, ``"index"`` or ``"random"``.
        second_moment: of newborn entries under Adam: ``"zero"``, as published, or ``"keep_mean"``.
        generator: source of the seeds of ``densities`` and of ties; by default the global one of
            the CPU.

    Attributes:
        report: the :class:`UpdateReport` of the last update.

    Raises:
        ValueError: if an argument is out of range; if the optimizers train no weight that can be
            masked; or if no entry is pruned and no ``densities`` are given. Nothing is changed. In
            the step of an update, if a gradient is NaN or infinite and no GradScaler skips it.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(8, 8)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> schedule = pol.dense_to_sparse.RigL(
        ...     model, sgd, every=2, end=6, densities=pol.densities.erk(model, 0.25)
        ... )
        >>> for _ in range(8):
        ...     sgd.zero_grad()
        ...     model(torch.ones(1, 8)).square().sum().backward()
        ...     sgd.step()
        ...     _ = schedule.step()
        >>> schedule.report.step, schedule.density()
        (6, 0.25)

    Source: Evci et al. (2020), *Rigging the lottery*, Algorithm 1; ``SparseRigLOptimizer`` of
    google-research/rigl for the order of operations, for the cosine at the step itself, not counted
    from ``begin``, and for the inclusive end. There an update does not count as a step, and noise
    of 1e-5 is added to magnitudes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        every: int,
        end: int,
        begin: int = 0,
        fraction: float = 0.3,
        replace_step: bool = True,
        densities: Mapping[str, float] | None = None,
        ties: Ties = "index",
        second_moment: SecondMoment = "zero",
        generator: torch.Generator | None = None,
    ) -> None:
        check_fraction("fraction", fraction)
        check_integer("end", end, at_least=1)
        check_flag("replace_step", replace_step)
        when = Every(every, begin, end)
        if end == begin:
            raise ValueError(f"end={end}, expected a step after begin={begin}")
        super().__init__(
            model,
            optimizer,
            when,
            partial(cosine, float(fraction), end - begin),
            None,
            replace_step=replace_step,
            densities=densities,
            ties=ties,
            second_moment=second_moment,
            generator=generator,
        )


def cosine(fraction: float, steps: int, step: int) -> float:
    """Return a fraction that falls to zero along half a cosine.

    Example:
        >>> [round(cosine(0.3, 100, step), 4) for step in (0, 50, 75, 100, 120)]
        [0.3, 0.15, 0.0439, 0.0, 0.0]
    """
    return fraction / 2 * (1 + math.cos(math.pi * min(step, steps) / steps))


def uniform(seed: int, name: str, step: int, mask: Tensor) -> Tensor:
    """Return uniform scores, which depend on seed, name, step and position alone."""
    words = words_in(seed, f"{name}, step {step}: uniform", 0, mask.numel())
    return torch.from_numpy(words.astype(np.float64)).view(mask.shape).to(mask.device)
