"""Masks, pruning and signs: the calls, and what the reference must become."""

import random
from typing import Any

import torch

import polarity as pol
from tests.machine import rules
from tests.machine.reference import Weight
from tests.machine.run import Run, Step
from tests.machine.training import put_zeros_back

STRATEGIES = ("mask1", "mask0", "initial", "trained", "gradual", "standard")
SCOPES = ("global", "layer")
TIES = ("index", "random")


def mask_weights(run: Run, draw: random.Random) -> Step | None:
    """Attach masks of ones to all weights, or to one of them."""
    reference = run.reference
    some = draw.random() < 0.4 or not run.kind.by_default
    names = [n for n in run.kind.weights if reference.weights[n].leaves[0].requires_grad]
    names = [draw.choice(names)] if some and names else names
    if not names:
        return None
    given = {"targets": tuple(names)} if some else {}
    return Step(
        f"mask_weights({given})",
        lambda: pol.mask_weights(run.model, **given),
        lambda _: reference.attach(default_names(run) if not some else names),
    )


def default_names(run: Run) -> list[str]:
    """Return what is masked by default: the kind's weights and those masked already."""
    return [n for n in run.kind.weights if run.reference.weights[n].leaves[0].requires_grad]


def load_masks(run: Run, draw: random.Random) -> Step | None:
    """Install random masks on masked weights: entries are pruned and become live again."""
    masked = run.reference.masked()
    names = [name for name in masked if draw.random() < 0.7]
    if not names:
        return None
    share = draw.random()
    masks = {n: torch.rand(masked[n].mask.shape, generator=run.batches) < share for n in names}
    for name, mask in masks.items():  # a compact weight takes some of its survivors
        if masked[name].compact:
            mask &= masked[name].mask.bool()
    dtype = draw.choice([torch.bool, torch.float32, torch.uint8])
    attach = draw.random() < 0.5

    def act() -> None:
        given = {name: mask.to(dtype) for name, mask in masks.items()}
        if attach:
            pol.mask_weights(run.model, masks=given)
        else:
            pol.load_masks(run.model, given)

    def expect(_: Any) -> None:
        before = run.sizes()
        run.reference.install(masks)
        run.not_told(before)

    return Step(f"load_masks({share:.2f} of {names})", act, expect)


def how_many(run: Run, draw: random.Random) -> tuple[float | None, float | None]:
    """Return an amount or a density that can be asked for."""
    masked = run.reference.masked().values()
    if masked and not all(weight.enforce for weight in masked):
        enforced = [float(w.mask.mean(dtype=torch.float64)) for w in masked if w.enforce]
        return None, round(min(enforced, default=1.0) * draw.choice([0.2, 0.5, 0.8]), 3)
    if draw.random() < 0.6 or not masked:
        return draw.choice([0.0, 0.1, 0.2, 0.5]), None
    lowest = min(float(w.mask.mean(dtype=torch.float64)) for w in masked)
    return None, round(lowest * draw.choice([0.5, 0.9]), 3)


def prunable(run: Run) -> list[str] | None:
    """Return what a pruning call without targets prunes."""
    masked = run.reference.masked()
    if masked or run.kind.by_default:
        return list(masked) or default_names(run) or None
    return None


def imp_prune(run: Run, draw: random.Random) -> Step | None:
    """IMP, weight rewinding and gradual pruning, with and without what trains the model."""
    names, reference = prunable(run), run.reference
    if names is None:
        return None
    amount, density = how_many(run, draw)
    scope = draw.choice(SCOPES)
    rewind = draw.random() < 0.35 and run.captured is not None
    told = draw.random() < 0.7
    if rewind and told and run.captured[1].layout != [key for key, _ in reference.leaves()]:
        told = False
    ties = draw.choice(TIES)
    given: dict[str, Any] = {"scope": scope, "ties": ties}
    given |= {"amount": amount} if density is None else {"density": density}
    given |= {"optimizer": run.optimizer} if told else {}
    given |= {"rewind": run.captured[0]} if rewind else {}
    given |= {"scheduler": run.scheduler} if rewind and told and run.schedules else {}
    lrr = rewind and told and draw.random() < 0.3
    by_schedule = density is None and draw.random() < 0.3

    def act() -> pol.PruneReport | None:
        if not by_schedule:
            return (pol.lrr_step if lrr else pol.imp_prune)(run.model, **given)
        how = {name: value for name, value in given.items() if name != "rewind"}
        how |= {"rewind": "schedule" if lrr else "weights"} if rewind else {}
        how |= {"point": given["rewind"]} if rewind else {}
        return pol.PruneRounds(run.model, every=1, rounds=1, **how).step()

    def expect(report: pol.PruneReport) -> None:
        scores = {name: reference.weights[name].effective.detach().abs() for name in names}
        seed = rules.draw_seed(None) if ties == "random" else None
        if seed is not None and by_schedule:
            seed = rules.draw_seed(torch.Generator().manual_seed(seed + 1))  # that of round 1
        kept = reference.kept(scores, amount, density, scope, seed)
        assert report.survivors == sum(int(mask.sum()) for mask in kept.values())
        moment = run.captured[1] if rewind else None
        before = run.sizes()
        reference.prune(kept, moment.values if rewind and not lrr else None)
        if rewind and not lrr:
            reference.restore(moment, lambda weight: not weight.masked, buffers=True)
        if rewind and told:
            reference.restore_schedule(moment)
            reference.forget_pruned(reference.masked().values())
        if told:
            reference.forget_pruned(reference.weights[name] for name in names)
        else:
            run.not_told(before)
        put_zeros_back(run)

    call = "PruneRounds" if by_schedule else "lrr_step" if lrr else "imp_prune"
    return Step(f"{call}({shown(given)})", act, expect)


def prune(run: Run, draw: random.Random) -> Step | None:
    """Prune by scores of many kinds: a mapping, a function, random ones, one with ties."""
    names, reference = prunable(run), run.reference
    if names is None:
        return None
    amount, density = how_many(run, draw)
    kind = draw.choice(["mapping", "function", "random", "ties", "densities"])
    scope = draw.choice(SCOPES)
    seed = draw.getrandbits(32)
    ties = draw.choice(TIES)
    given: dict[str, Any] = {"scope": scope, "ties": ties}
    given |= {"amount": amount} if density is None else {"density": density}
    given |= {"optimizer": run.optimizer} if draw.random() < 0.5 else {}
    stream: torch.Generator | None = None
    scores: Any = {n: torch.randn(reference.weights[n].leaves[0].shape, generator=run.batches)
                   for n in names}  # fmt: skip
    if kind == "ties":
        scores = {name: value.sign() for name, value in scores.items()}
    tensors = dict(scores)
    wanted: Any = density
    if kind == "function":
        scores = lambda name, weight: tensors[name]  # noqa: E731
    elif kind == "random":
        scores = pol.scores.random
        given |= {"generator": torch.Generator().manual_seed(seed)}
        stream = torch.Generator().manual_seed(seed)
        for name, each in tensors.items():
            drawn = rules.words(rules.draw_seed(stream), name, each.numel()) / 2**32
            tensors[name] = torch.from_numpy(drawn).reshape(each.shape)
    elif kind == "densities":
        amount = None
        wanted = {name: 0.5 * share(reference.weights[name]) for name in names}
        given = {"densities": wanted} | {k: given[k] for k in ("ties", "optimizer") if k in given}

    def expect(report: pol.PruneReport) -> None:
        seed = rules.draw_seed(stream) if ties == "random" else None
        kept = reference.kept(tensors, amount, wanted, scope, seed)
        assert {e.name: e.after for e in report.layers} == {
            name: int(mask.sum()) for name, mask in kept.items()
        }
        before = run.sizes()
        reference.prune(kept)
        if "optimizer" in given:
            reference.forget_pruned(reference.weights[name] for name in names)
        else:
            run.not_told(before)
        put_zeros_back(run)

    return Step(
        f"prune({kind}, {shown(given)})", lambda: pol.prune(run.model, scores, **given), expect
    )


def prune_inside(run: Run, draw: random.Random) -> Step | None:
    """Prune one module of the model by itself: the others stay as they are."""
    reference = run.reference
    paths = {name.rpartition(".")[0] for name in reference.masked()} - {""}
    if not paths:
        return None
    path = draw.choice(sorted(paths))
    inside = {name: w for name, w in reference.masked().items() if name.startswith(f"{path}.")}
    if not all(weight.enforce for weight in inside.values()):
        return None

    def act() -> pol.PruneReport:
        return pol.imp_prune(run.model.get_submodule(path), 0.3, optimizer=run.optimizer)

    def expect(report: pol.PruneReport) -> None:
        scores = {name: weight.effective.detach().abs() for name, weight in inside.items()}
        reference.prune(reference.kept(scores, 0.3, None, "global"))
        reference.forget_pruned(inside.values())
        put_zeros_back(run)

    return Step(f"imp_prune({path}, 0.3)", act, expect)


def share(weight: Weight) -> float:
    return 1.0 if weight.mask is None else float(weight.mask.mean(dtype=torch.float64))


def reinit_signs(run: Run, draw: random.Random) -> Step | None:
    """Signed constants by every strategy and perturbation."""
    reference, masked = run.reference, run.reference.masked()
    if not masked or run.captured is None:
        return None
    strategy = draw.choice(STRATEGIES[:-1] if run.compact_weights() else STRATEGIES)
    scope = draw.choice(SCOPES)
    phi = draw.choice([0.0, 0.0, 0.1, -0.05])
    known = [("epsilon", 0.3), ("delta", 0.2), ("delta, ties at random", 0.4)]
    perturbations = draw.sample(known, draw.randint(0, 2))
    if not all(int(weight.mask.sum()) for weight in masked.values()):
        perturbations = [each for each in perturbations if each[0] == "epsilon"]
    seed = draw.choice([None, draw.getrandbits(32)])
    init = run.captured[1].values
    trained = None
    if strategy == "standard":
        trained = {name: weight.effective.detach().clone() for name, weight in masked.items()}
        for name, value in trained.items():
            value[masked[name].mask == 0] = 0.25
    makers = {
        "epsilon": pol.Epsilon,
        "delta": pol.Delta,
        "delta, ties at random": lambda fraction: pol.Delta(fraction, ties="random"),
    }
    perturb = [makers[kind](fraction) for kind, fraction in perturbations]
    perturb += [pol.Phi(phi)] if phi else []

    def generator() -> torch.Generator | None:
        return None if seed is None else torch.Generator().manual_seed(seed)

    def act() -> pol.SignReport:
        return pol.reinit_signs(run.model, strategy, perturb or None, init=run.captured[0],
                                trained=trained, scope=scope, generator=generator())  # fmt: skip

    def expect(report: pol.SignReport) -> None:
        reference.sign(strategy, init, trained, perturbations, scope, phi, generator())
        assert report.survivors == sum(int(w.mask.sum()) for w in masked.values())

    what = f"reinit_signs({strategy!r}, {perturb}, scope={scope!r}, seed={seed})"
    return Step(what, act, expect)


def shown(given: dict[str, Any]) -> str:
    shown = {k: v if isinstance(v, (int, float, str)) else "…" for k, v in given.items()}
    return ", ".join(f"{key}={value}" for key, value in shown.items())


OPERATIONS = {
    "mask_weights": mask_weights, "load_masks": load_masks, "imp_prune": imp_prune,
    "prune": prune, "prune_inside": prune_inside, "reinit_signs": reinit_signs,
}  # fmt: skip
