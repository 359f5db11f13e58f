"""Show a model as it is: forms, densities, signs, reach and multiply-adds."""

from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from polarity._checks import check_integer
from polarity._inputs import check_inputs
from polarity._running import outside_inference_mode, tensors_in
from polarity.analysis.products import Products
from polarity.analysis.summary_report import Summary, WeightSummary
from polarity.attach.inner_scaling import inner_scaling
from polarity.attach.plain_copy import full_copy
from polarity.deploy.restore import decompress
from polarity.deploy.sparse_linear import SparseLinear
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.sign_in import SignInMW
from polarity.parametrizations.soft_threshold import SoftThreshold
from polarity.signs.deviation import population_deviation
from polarity.targets.defaults import too_narrow
from polarity.targets.left_out import matrix_size, reach_of, why_no_default
from polarity.targets.search import all_targets, why_not
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import Target, check_has_values
from polarity.targets.wrappers import unwrapped

__all__ = ["summary"]

_OWN = (MaskedWeight, NormInterp, SoftThreshold)


@outside_inference_mode
def summary(model: nn.Module, inputs: Any = None, *, examples: int | None = None) -> Summary:
    r"""Return one table of a model as it is, with a row for every weight.

    A row says what the weight is (plain, masked, Sign-In, compact, …), its density and the balance
    of its signs, how its survivors are spread, the mean inner scaling of Sign-In, and why a pruning
    call would not take it by default, see :class:`WeightSummary
    <polarity.analysis.WeightSummary>`. Rows are the matrices and every parameter with something
    attached.

    With ``inputs``, a plain copy of the model runs once in evaluation mode, and the multiply-adds
    of its matrix products and convolutions are counted by the formulas of
    ``torch.utils.flop_counter``. A weight :math:`w` with :math:`n` entries that takes part in
    :math:`F` multiply-adds for each example needs :math:`F\,\lVert w \rVert_0 / n` of them if
    products skip its zeros. Elementwise operations, norms and look-ups are not counted.

    Nothing changes: neither the model nor its modes, statistics or gradients, nor the random state.

    Args:
        model: any module, with or without anything attached, or a wrapper of one.
        inputs: what the model is called on: a tensor, a tuple or list of arguments, or a dict of
            keyword arguments. They are moved to the model's device. Without them nothing is
            counted, and nothing runs.
        examples: how many examples the inputs are, by which counts are divided; by default the
            length of their first tensor.

    Returns:
        The :class:`Summary`.

    Raises:
        ValueError: if a parameter is lazy or on the meta device; if a mask holds other values than
            zeros and ones; or if ``examples`` is below 1, or given without ``inputs``.
        TypeError: if an argument is of another type, or a weight is sharded.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> _ = pol.imp_prune(model, density=0.25, scope="layer")
        >>> table = pol.summary(model, torch.ones(8, 6))
        >>> table["0.weight"].form, table["0.weight"].density
        ('masked', 0.25)
        >>> table.dense_multiply_adds, table.sparse_multiply_adds
        (32, 8)
    """
    counting = inputs is not None
    if counting:
        check_inputs("inputs", inputs)
    if examples is not None:
        check_integer("examples", examples, at_least=1)
        if not counting:
            raise ValueError(f"examples={examples} needs inputs=, expected the inputs to count on")
    refuse_sharded(model, "summary")
    inner = unwrapped(model)
    paths = {f"{p}.weight".removeprefix(".") for p, m in inner.named_modules() if _is_sparse(m)}
    if paths:  # their weights are no parameters
        inner = decompress(full_copy(inner))
    targets = all_targets(inner)
    _check(targets)
    products = Products.of(inner, inputs) if counting else None
    divisor = examples or next((len(each) for each in tensors_in(inputs) if each.dim()), 1)

    signed = any(isinstance(target.masking, SignInMW) for target in targets)
    scaling = inner_scaling(inner) if signed else {}
    reasons = {target.name: _why_left_out(target) for target in targets}
    shown = [t for t in targets if matrix_size(t) is not None or not t.is_plain]
    rows = []
    for target in shown:
        form = "sparse product" if target.name in paths else _form(target)
        count = None if products is None else products.of_weight(target.name)
        beta = float(scaling[target.name].double().mean()) if target.name in scaling else None
        rows.append(_row(target, form, reasons[target.name], beta, count, divisor))
    taken = [name for name, why in reasons.items() if why is None]
    return Summary(
        tuple(rows),
        sum(leaf.numel() for t in targets if t not in shown for leaf in t.stored),
        None if products is None else _divided(products.others, divisor),
        reach_of(targets, taken, lambda target: reasons[target.name] or ""),
    )


def _row(
    target: Target,
    form: str,
    left_out: str | None,
    beta: float | None,
    count: int | None,
    divisor: int,
) -> WeightSummary:
    """Read one weight."""
    weight = _effective(target)
    if target.masking is None and target.torch_mask is None:
        survivors = weight != 0
    else:
        survivors = target.mask if target.threshold is None else target.support & target.mask
    values = weight[survivors]
    total, live = weight.numel(), values.numel()
    if target.masking is not None and not target.masking.enforce:
        live = int(weight.count_nonzero())  # of all, since the mask is not applied
    return WeightSummary(
        name=target.name,
        shape=tuple(weight.shape),
        form=form,
        frozen=not any(leaf.requires_grad for leaf in target.stored),
        aliases=target.aliases,
        survivors=values.numel(),
        plus=int((values > 0).count_nonzero()),
        minus=int((values < 0).count_nonzero()),
        survivor_std=population_deviation(values),
        inner_scaling=beta,
        left_out=left_out,
        dense_multiply_adds=None if count is None else _divided(count, divisor),
        sparse_multiply_adds=None if count is None else _divided(count * live, divisor * total),
    )


def _effective(target: Target) -> Tensor:
    """Return the effective weight, without the changes that reading one may make."""
    if all(isinstance(each, _OWN) for each in target.chain):
        weight = target.weight
    else:  # spectral_norm takes a step of its iteration whenever it is read in training mode
        twin = full_copy(target.module).eval()
        weight = getattr(twin, target.tensor_name).detach()
    return weight.float() if too_narrow(weight) else weight


def _form(target: Target) -> str:
    """Say what a weight is made of."""
    parts = [] if target.torch_mask is None else ["torch.nn.utils.prune"]
    for each in target.chain:
        if isinstance(each, MaskedWeight):
            parts.append("Sign-In" if isinstance(each, SignInMW) else "masked")
            parts += ["compact"] if target.is_compact else []
            parts += ["in step"] if each.in_step is not None else []
            parts += [] if each.enforce else ["remembered"]
        elif isinstance(each, SoftThreshold):
            parts.append("soft threshold")
        elif isinstance(each, NormInterp):
            parts.append("norm interpolated")
        else:
            parts.append(type(each).__name__)
    return ", ".join(parts) or "plain"


def _why_left_out(target: Target) -> str | None:
    """Return why pruning does not take a weight by default, or None if it does."""
    if target.masking is not None:
        return None
    return why_no_default(target) or why_not(target)


def _check(targets: list[Target]) -> None:
    """Raise for what has no values, or not all of them."""
    for target in targets:
        for leaf in target.stored:
            if is_lazy(leaf):
                raise ValueError(f"{target.name} is lazy: run one batch through the model first")
    check_has_values(targets)


def _is_sparse(module: nn.Module) -> bool:
    return isinstance(module, SparseLinear)


def _divided(count: int, divisor: int) -> float:
    """Return a quotient, as an int where it is one."""
    return count // divisor if divisor and count % divisor == 0 else count / max(1, divisor)
