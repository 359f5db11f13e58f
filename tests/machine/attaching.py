"""Conversions, moments and tickets: the calls, and what the reference must become."""

import random
import tempfile
from typing import Any

import torch

import polarity as pol
from tests.machine import conversions
from tests.machine.pruning import default_names, shown
from tests.machine.run import Run, Step, same
from tests.machine.training import put_zeros_back


def sign_in(run: Run, draw: random.Random) -> Step | None:
    """Convert to Sign-In: the masked weights, or all; with the optimizer or a new one after."""
    reference, masked = run.reference, run.reference.masked()
    if not masked and (not run.kind.by_default or not default_names(run)):
        return None
    names = list(masked) or default_names(run)
    beta = draw.choice([0.3, 1.0, 4.0])
    told = draw.random() < 0.8 and not run.setting.closure
    given = {"optimizer": run.optimizer} if told else {}

    def act() -> None:
        pol.sign_in(run.model, beta=beta, **given)

    def expect(_: Any) -> None:
        new = any(reference.weights[name].form != "sign_in" for name in names)
        conversions.sign_in(reference, names, beta, run.seen, follow=told)
        after_conversion(run, stale=new and not told)

    return Step(f"sign_in(beta={beta}, {shown(given)})", act, expect)


def after_conversion(run: Run, *, stale: bool) -> None:
    """See that an optimizer that was not told raises, and build new ones."""
    if not stale:
        return
    present = {id(parameter) for parameter in run.model.parameters()}
    for each in run.optimizers:
        held = {id(parameter) for group in each.param_groups for parameter in group["params"]}
        assert held <= present or _is_stale(each), "an optimizer trains weights that are gone"
    run.build_optimizers()
    run.reference.build_optimizers()
    if run.handle is not None:
        run.handle.remove()
        run.handle = None
        for weight in run.reference.weights.values():
            weight.in_step = False


def _is_stale(optimizer: torch.optim.Optimizer) -> bool:
    try:
        optimizer.step(lambda: torch.zeros(()))
    except RuntimeError as error:
        return "no longer has" in str(error)
    return False


def merge(run: Run, draw: random.Random) -> Step | None:
    """Make everything plain again; later operations attach anew."""
    reference = run.reference
    products = [w for w in reference.masked().values() if w.form == "sign_in" or w.compact]
    if not reference.masked() and not reference.norms():
        return None
    told = draw.random() < 0.8 and not run.setting.closure
    given = {"optimizer": run.optimizer} if told else {}

    def expect(_: Any) -> None:
        conversions.merge(reference, follow=told)
        after_conversion(run, stale=bool(products) and not told)
        run.handle = None

    return Step(f"merge({shown(given)})", lambda: pol.merge(run.model, **given), expect)


def rescale(run: Run, draw: random.Random) -> Step | None:
    """Restore the inner scaling, by a call or by a schedule."""
    products = [w for w in run.reference.masked().values() if w.form == "sign_in"]
    if not products:
        return None
    momentum = draw.choice(["keep", "zero", "transform"])
    states = [run.reference.state(leaf) for weight in products for leaf in weight.leaves]
    if any(conversions.foreign(state, w.leaves[0]) for w in products
           for state in (run.reference.state(w.leaves[0]),)) or run.setting.closure:  # fmt: skip
        momentum = "keep"
    if momentum == "transform" and not all(states):
        momentum = "zero"
    given = {"optimizer": run.optimizer} if momentum != "keep" else {}
    by_schedule = draw.random() < 0.5

    def act() -> None:
        if by_schedule:
            schedule = pol.RescaleSchedule(run.model, every=1, momentum=momentum, **given)
            assert schedule.step()
        else:
            pol.rescale(run.model, momentum=momentum, **given)

    def expect(_: Any) -> None:
        conversions.rescale(run.reference, momentum, run.seen)

    return Step(f"rescale(momentum={momentum!r}, schedule={by_schedule})", act, expect)


def interpolate_norms(run: Run, draw: random.Random) -> Step | None:
    names = run.reference.norm_names()
    if not names:
        return None
    seed = draw.choice([None, draw.getrandbits(32)])

    def generator() -> torch.Generator | None:
        return None if seed is None else torch.Generator().manual_seed(seed)

    return Step(
        f"interpolate_norms(seed={seed})",
        lambda: pol.interpolate_norms(run.model, generator=generator()),
        lambda _: conversions.interpolate(run.reference, names, generator()),
    )


def norm_alpha(run: Run, draw: random.Random) -> Step | None:
    """Fix, hold, free, read, save and load the value that norms are interpolated with."""
    stream = run.reference.stream
    if stream is None:
        return None
    how: Any = draw.choice([0.25, 0.0, 1.0, "hold", "random", "load"])

    def act() -> None:
        if how == "load":
            state = pol.norm_alpha_state(run.model)
            pol.load_norm_alpha_state(run.model, {name: each * 3 for name, each in state.items()})
        else:
            pol.set_norm_alpha(run.model, how)

    def expect(_: Any) -> None:
        if how == "load":
            stream.state = (stream.state[0] * 3, stream.state[1] * 3)
            return
        stream.redraw = how == "random"
        if how == "hold":
            stream.draw()
        elif how != "random":
            stream.alpha = how
        assert {float(each) for each in pol.norm_alpha(run.model).values()} == {stream.alpha}

    if how == "load" and max(stream.state) * 3 >= 2147483399:
        return None
    return Step(f"set_norm_alpha({how!r})", act, expect)


def capture(run: Run, draw: random.Random) -> Step:
    """Capture this moment, with what trains the model."""
    several = len(run.optimizers) > 1

    def act() -> pol.RewindPoint:
        return pol.RewindPoint.capture(run.model, run.optimizer, run.scheduler)

    def expect(point: pol.RewindPoint) -> None:
        moment = run.reference.capture()
        for name, value in moment.values.items():
            same(value, point.weights[name], f"captured {name}")
        run.captured = (point, moment)

    return Step(f"RewindPoint.capture(several={several})", act, expect)


def rewind(run: Run, draw: random.Random) -> Step | None:
    if run.captured is None:
        return None
    only = draw.choice(["all", "masked", "unmasked"])
    schedule = draw.random() < 0.5 and not run.compact_weights()
    if run.captured[1].layout != [key for key, _ in run.reference.leaves()]:
        schedule = False
    point, moment = run.captured

    def act() -> None:
        point.restore_weights(run.model, only=only)
        if schedule:
            point.restore_schedule(run.optimizer, run.scheduler)

    def expect(_: Any) -> None:
        chosen = {"all": lambda w: True, "masked": lambda w: w.masked,
                  "unmasked": lambda w: not w.masked}[only]  # fmt: skip
        run.reference.restore(moment, chosen, buffers=only != "masked")
        if schedule:
            run.reference.restore_schedule(moment)

    return Step(f"restore_weights(only={only!r}), schedule={schedule}", act, expect)


def enforce_in_step(run: Run, draw: random.Random) -> Step | None:
    """Move the masks into the optimizer's step, or back into forward."""
    reference = run.reference
    if run.handle is not None:
        handle = run.handle

        def remove(_: Any) -> None:
            for weight in reference.weights.values():
                weight.in_step = False
            run.handle = None

        return Step("handle.remove()", handle.remove, remove)
    trained = [w for w in reference.masked().values() if all(p.requires_grad for p in w.leaves)]
    if (
        not trained or run.compact_weights() or run.setting.closure
    ):  # LBFGS evaluates in the middle of its step
        return None

    def expect(handle: pol.StepEnforcement) -> None:
        assert isinstance(handle, pol.StepEnforcement)
        run.handle = handle
        for weight in trained:
            weight.in_step = True
        put_zeros_back(run)

    return Step("enforce_in_step", lambda: pol.enforce_in_step(run.model, run.optimizer), expect)


def ticket(run: Run, draw: random.Random) -> Step | None:
    """Apply the model's own ticket to it after its signs were flipped."""
    masked = run.reference.masked()
    if not masked:
        return None
    from_file = draw.random() < 0.5

    def act() -> pol.SignedMask:
        taken = pol.signed_mask(run.model)
        if from_file:
            with tempfile.TemporaryDirectory() as folder:
                taken.save(f"{folder}/ticket.safetensors")
                taken = pol.SignedMask.load(f"{folder}/ticket.safetensors")
        other = run.kind.fresh(seed=7).requires_grad_()
        taken.apply(other)
        dense = pol.dense_state_dict(other)
        for name, mask in pol.masks(run.model).items():
            expected = run.kind.fresh(seed=7).get_parameter(name).abs().detach()
            signs = torch.where(mask, taken.signs[name], 0).to(expected.dtype)
            zero = mask & (taken.signs[name] == 0)
            own = run.kind.fresh(seed=7).get_parameter(name).detach()
            same(torch.where(zero, own, expected * signs), dense[name], f"ticket at {name}")
        taken.apply(run.model)
        return taken

    def expect(taken: pol.SignedMask) -> None:
        with torch.no_grad():
            for name, weight in masked.items():
                value, mask = weight.effective.detach().clone(), weight.mask.bool()
                signs = torch.where(mask, value.sign(), 0)
                assert torch.equal(taken.signs[name], signs.to(torch.int8)), name
                run.reference.install({name: mask})
                run.reference.write(weight, torch.where(mask, value.abs() * signs, 0.0))
        put_zeros_back(run)

    return Step(f"signed_mask, file={from_file}, apply", act, expect)


OPERATIONS = {
    "sign_in": sign_in, "merge": merge, "rescale": rescale,
    "interpolate_norms": interpolate_norms, "norm_alpha": norm_alpha, "capture": capture,
    "rewind": rewind, "enforce_in_step": enforce_in_step, "ticket": ticket,
}  # fmt: skip
