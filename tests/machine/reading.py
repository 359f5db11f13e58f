"""The calls of polarity that read a model: each leaves the run exactly as it was."""

import copy
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import polarity as pol
from tests.machine.run import Run, Step

# Models without batch statistics or recurrence, whose second derivatives are cheap.
SMOOTH = ("stack", "transposed", "custom", "shared", "tied")


def read(what: str, act: Callable[[], Any], expect: Callable[[Any], None] | None = None) -> Step:
    return Step(what, act, expect or (lambda result: None))


def find_targets(run: Run, draw: random.Random) -> Step | None:
    masked = run.reference.masked()
    names = [n for n in run.kind.weights
             if n in masked or run.reference.weights[n].leaves[0].requires_grad]  # fmt: skip
    if not names or not run.kind.by_default:
        return None

    def expect(found: Any) -> None:
        assert list(found) == names
        for name, target in found.items():
            assert torch.equal(target.weight, run.reference.weights[name].effective.detach())

    return read("find_targets", lambda: pol.find_targets(run.model), expect)


def densities(run: Run, draw: random.Random) -> Step | None:
    if not run.reference.masked():
        return None
    names = list(run.reference.masked())

    def act() -> list[dict[str, float]]:
        rules = (pol.densities.uniform, pol.densities.erk, pol.densities.balanced)
        return [rule(run.model, 0.3) for rule in rules]

    def expect(given: list[dict[str, float]]) -> None:
        assert all(list(each) == names for each in given)

    return read("densities", act, expect)


def scores(run: Run, draw: random.Random) -> Step | None:
    """Score from the data: on a copy, whatever is attached."""
    masked = run.reference.masked()
    if run.kind.name not in (*SMOOTH, "conv_bn", "transformer") or not masked:
        return None
    if not any(weight.mask.any() for weight in masked.values()):
        return None
    if not any(leaf.requires_grad for w in masked.values() for leaf in w.leaves):
        return None
    batches = [(run.batch(), torch.zeros(())) for _ in range(2)]
    which = draw.choice(["snip", "grasp", "synflow"])
    share = 0.5 * float(pol.density(run.model))

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - 1).square().mean()

    def act() -> Any:
        try:
            if which == "synflow":
                return pol.scores.synflow(run.model, batches[0][0], density=share, steps=3)
            return getattr(pol.scores, which)(run.model, loss, batches)
        except ValueError as error:
            if "zero" in str(error) or "no " in str(error):
                return None  # every gradient is zero: nothing is left to score
            raise

    def expect(found: dict[str, Tensor] | None) -> None:
        assert found is None or list(found) == list(masked)

    return read(f"scores.{which}", act, expect)


def analyse(run: Run, draw: random.Random) -> Step | None:
    """Sharpness, barriers, flips and statistics."""
    if run.kind.name not in SMOOTH or not run.reference.masked():
        return None
    batches = [(run.batch(), torch.zeros(()))]
    which = draw.choice(["sharpness", "barrier", "stability"])

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - 1).square().mean()

    def evaluate(model: torch.nn.Module) -> float:
        return float((model(*batches[0][0]).detach() - 1).square().mean())

    def train(model: torch.nn.Module, seed: int) -> None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        if optimizer.param_groups:
            loss(model(*batches[0][0]), torch.zeros(())).backward()
            optimizer.step()

    def act() -> Any:
        if which == "sharpness":
            return pol.sharpness(run.model, loss, batches, tolerance=0.1)
        if which == "barrier":
            state = copy.deepcopy(run.model.state_dict())
            barrier = pol.error_barrier(run.model, state, run.model, evaluate, points=3)
            assert isinstance(barrier, pol.ErrorBarrier)
            return barrier
        pol.init_noise_stability(lambda seed: run.kind.fresh(seed), train, evaluate, points=3)
        return pol.sgd_noise_stability(run.model, train, evaluate, points=3)

    if not any(leaf.requires_grad for _, leaf in run.reference.leaves()):
        return None
    return read(which, act)


def flips(run: Run, draw: random.Random) -> Step | None:
    if not run.reference.masked():
        return None
    point = None if run.captured is None else run.captured[0]

    def act() -> tuple[Any, Any]:
        tracker = pol.SignTracker(run.model)
        tracker.step()
        tracker.mark("now")
        before = point if point is not None else run.model
        return tracker.flips("init", "now"), pol.sign_flips(before, run.model)

    def expect(found: tuple[pol.FlipReport, pol.FlipReport]) -> None:
        assert found[0].flipped == 0
        if point is None:
            return
        flipped = 0
        for name, weight in run.reference.masked().items():
            product = run.captured[1].values[name].double() * weight.effective.detach().double()
            flipped += int(((product < 0) & weight.mask.bool()).sum())
        assert found[1].flipped == flipped

    return read("SignTracker, sign_flips", act, expect)


def signed_constants(run: Run, draw: random.Random) -> Step | None:
    if not run.reference.masked() or run.captured is None:
        return None
    captured = run.captured[0].weights

    def act() -> None:
        masks = pol.masks(run.model)
        now = {name: captured[name] for name in masks}
        new, report = pol.signed_constants(now, now, masks, "mask0")
        assert isinstance(report, pol.SignReport)
        for name, mask in masks.items():
            assert not new[name][~mask].any()

    return read("signed_constants", act)


def factors(run: Run, draw: random.Random) -> Step | None:
    products = {n: w for n, w in run.reference.masked().items() if w.form == "sign_in"}
    if not products:
        return None

    def act() -> tuple[dict[str, Tensor], Tensor]:
        return pol.inner_scaling(run.model), pol.frobenius_decay(run.model).detach()

    def expect(found: tuple[dict[str, Tensor], Tensor]) -> None:
        assert list(found[0]) == list(products)
        squares = [w.effective.detach().float().square().sum() for w in products.values()]
        torch.testing.assert_close(found[1], sum(squares), rtol=1e-4, atol=1e-6)

    return read("inner_scaling, frobenius_decay", act, expect)


def copies(run: Run, draw: random.Random) -> Step:
    """Statistics are recomputed, and layers compressed, on a merged copy."""
    inputs = [run.batch() for _ in range(2)]

    def act() -> None:
        copied = copy.deepcopy(run.model)
        if run.reference.masked() or run.reference.norms():
            pol.merge(copied)
        assert list(copied.state_dict()) == list(run.reference.twin.state_dict())
        pol.recalibrate_batch_norm(copied, inputs)
        if run.kind.name in ("stack", "shared", "half_frozen"):
            copied.eval()
            plain = copied(*inputs[0])
            pol.deploy.compress(copied, inputs[0], measure=lambda dense, sparse: (2.0, 1.0))
            torch.testing.assert_close(copied(*inputs[0]), plain, rtol=1e-4, atol=1e-5)
            pol.deploy.decompress(copied)

    return read("merge, recalibrate and compress a copy", act)


OPERATIONS = {
    "find_targets": find_targets, "densities": densities, "scores": scores, "analyse": analyse,
    "flips": flips, "signed_constants": signed_constants, "factors": factors, "copies": copies,
}  # fmt: skip
