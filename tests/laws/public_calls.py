"""Every public call once, on models that are big enough, for laws that hold for all of them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import compacted as stored_compactly
from tests.laws.refusals import fingerprint
from tests.models import seeded

Batches = list[tuple[Tensor, Tensor]]


def network(seed: int = 0) -> nn.Sequential:
    """Build a network with a weight above every gate (2**16 entries) and a norm."""
    layers = [nn.Linear(300, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 8)]
    return seeded(nn.Sequential(*layers), seed)


def batches(seed: int = 1) -> Batches:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 300, generator=draw), torch.randn(8, 8, generator=draw))]


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Batches | None = None
) -> None:
    for inputs, target in batches() if data is None else data:
        optimizer.zero_grad()
        mse_loss(model(inputs), target).backward()
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


@dataclass
class Setting:
    """Models in every form, all built before the call, and what calls need besides.

    With ``compact`` the masked and the Sign-In model store their survivors alone.
    """

    folder: Path
    compact: bool = False
    plain: nn.Module = field(default_factory=network)
    other: nn.Module = field(default_factory=lambda: network(5))
    torchs: nn.Module = field(default_factory=network)
    model: nn.Module = field(default_factory=network)
    signed: nn.Module = field(default_factory=network)
    normed: nn.Module = field(default_factory=network)
    draw: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(3))
    batches: Batches = field(default_factory=batches)

    def __post_init__(self) -> None:
        self.file = self.folder / "model.safetensors"
        self.ticket_file = self.folder / "ticket.safetensors"
        for layer in (self.torchs[0], self.torchs[3]):
            torch_prune.l1_unstructured(layer, "weight", amount=0.5)
        self.optimizer = sgd(self.model)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5)
        self.start = pol.RewindPoint.capture(self.model, self.optimizer, self.scheduler)
        train_step(self.model, self.optimizer)
        pol.imp_prune(self.model, density=0.6, optimizer=self.optimizer)
        self.trained = pol.RewindPoint.capture(self.model)
        pol.imp_prune(self.model, density=0.5, optimizer=self.optimizer)
        pol.save(self.model, self.file)
        self.ticket = pol.signed_mask(self.model)
        self.ticket.save(self.ticket_file)
        pol.imp_prune(self.signed, density=0.5)
        pol.sign_in(self.signed, beta=0.5)
        train_step(self.signed, sgd(self.signed))
        if self.compact:
            stored_compactly(self.model, self.optimizer)
            stored_compactly(self.signed)
        pol.interpolate_norms(self.normed, generator=torch.Generator().manual_seed(4))
        train_step(self.normed, sgd(self.normed))
        self.masks = {name: mask.flip(0) for name, mask in pol.masks(self.model).items()}
        self.state = pol.norm_alpha_state(self.normed)
        self.x = batches()[0][0]
        self.weights = {"w": torch.randn(300, 256, generator=torch.Generator().manual_seed(0))}
        self.init = {"w": self.weights["w"].flip(0)}

    def models(self) -> list[nn.Module]:
        return [self.plain, self.other, self.torchs, self.model, self.signed, self.normed]

    def evaluate(self, model: nn.Module) -> float:
        return float(mse_loss(model(self.x), torch.zeros(8, 8, device="cpu", dtype=torch.float32)))

    def constants(self) -> Any:
        given = {name: self.model[int(name[0])].weight.detach() for name in self.masks}
        return pol.signed_constants(given, self.start.weights, pol.masks(self.model))


def track(s: Setting) -> Any:
    tracker = pol.SignTracker(s.model)
    pol.load_masks(s.model, s.masks)
    tracker.step()
    tracker.mark("later")
    return tracker.cumulative(), tracker.flips("init", "later"), tracker.state_dict()


def scheduled(s: Setting) -> Any:
    schedule = pol.RescaleSchedule(s.signed, every=1)
    schedule.step()
    return s.signed


def in_rounds(s: Setting) -> Any:
    given = {"point": s.start, "optimizer": s.optimizer, "scheduler": s.scheduler}
    rounds = pol.PruneRounds(
        s.model, 0.3, every=1, rounds=2, rewind="weights", ties="random", **given
    )
    again = pol.PruneRounds(s.plain, 0.2, every=1, rounds=1, rewind="weights")
    again.load_state_dict(again.state_dict())
    return [rounds.step(), again.step(), rounds.state_dict(), s.model, s.plain]


def enforced(s: Setting) -> Any:
    handle = pol.enforce_in_step(s.model, s.optimizer)
    handle.project()
    return s.model


def stable(s: Setting) -> Any:
    def train(model: nn.Module, seed: int) -> None:
        train_step(model, sgd(model), s.batches if seed else s.batches[::-1])

    return pol.sgd_noise_stability(s.other, train, s.evaluate, points=3, bn="keep")


def compressed(s: Setting) -> Any:
    report = pol.deploy.compress(s.plain.eval(), s.x, measure=lambda dense, sparse: (2.0, 1.0))
    return len(report.layers), pol.deploy.decompress(s.plain)


def compact(s: Setting) -> Any:
    faster = {"measure": lambda masked, compact: (2.0, 1.0), "break_even": 1.0}
    report = pol.compact(s.model, s.x, optimizer=s.optimizer, **faster)
    pol.compact(s.signed, targets="0.weight")
    return report.compact, s.model, s.signed


def expand(s: Setting) -> Any:
    compact(s)
    return pol.expand(s.model, optimizer=s.optimizer), pol.expand(s.signed)


def reset(s: Setting) -> Any:
    for model in (s.model, s.signed, s.normed):
        torch.manual_seed(2)
        model.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    return s.model, s.signed, s.normed


def assign(s: Setting) -> Any:
    s.model[0].weight = s.other[0].weight.detach()
    s.signed[0].weight = s.other[0].weight.detach()
    return s.model, s.signed


def thresholded(s: Setting) -> nn.Module:
    s.optimizer = sgd(s.model)  # one without a scheduler
    pol.dense_to_sparse.threshold_weights(s.model, s.optimizer, decay=0.1, s0=-3.0)
    return s.model


# Each name begins with the public name that it is about.
CALLS: dict[str, Callable[[Setting], Any]] = {
    "find_targets": lambda s: str(pol.find_targets(s.model)),
    "mask_weights": lambda s: pol.mask_weights(s.plain),
    "mask_weights with masks": lambda s: pol.mask_weights(s.plain, masks=s.masks),
    "mask_weights, taken over": lambda s: pol.mask_weights(s.torchs),
    "masks": lambda s: pol.masks(s.model),
    "load_masks": lambda s: pol.load_masks(s.model, s.masks),
    "load_masks in factors": lambda s: pol.load_masks(s.signed, s.masks),
    "density": lambda s: [pol.density(each) for each in s.models()],
    "sparsity": lambda s: pol.sparsity(s.model),
    "imp_prune": lambda s: (pol.imp_prune(s.model, 0.3, optimizer=s.optimizer), s.model),
    "imp_prune with rewinding": lambda s: (
        pol.imp_prune(s.model, 0.3, rewind=s.start, optimizer=s.optimizer, scheduler=s.scheduler),
        s.model,
    ),
    "imp_prune a plain model": lambda s: (pol.imp_prune(s.plain, density=0.2), s.plain),
    "lrr_step": lambda s: (pol.lrr_step(s.model, 0.2, rewind=s.start), s.model),
    "PruneRounds": in_rounds,
    "prune": lambda s: (
        pol.prune(s.model, pol.scores.random, amount=0.5, generator=s.draw),
        s.model,
    ),
    "imp_prune with drawn ties": lambda s: (
        pol.imp_prune(s.model, density=0.2, ties="random", generator=s.draw),
        s.model,
    ),
    "prune without generator": lambda s: (pol.prune(s.signed, pol.scores.random, amount=0.5), 0),
    "reinit_signs": lambda s: (
        pol.reinit_signs(s.model, "mask1", init=s.start, perturb=pol.Epsilon(0.2)),
        s.model,
    ),
    "reinit_signs standard": lambda s: (
        pol.reinit_signs(s.model, "standard", init=s.start, trained=s.trained),
        s.model,
    ),
    "reinit_signs gradual": lambda s: (
        pol.reinit_signs(s.model, "gradual", init=s.start, perturb=pol.Delta(0.2)),
        s.model,
    ),
    "signed_constants": Setting.constants,
    "reinitialize": lambda s: [
        pol.reinitialize(each, generator=s.draw) for each in (s.model, s.signed, s.normed)
    ],
    "sign_in": lambda s: pol.sign_in(s.model, beta=0.3, optimizer=s.optimizer),
    "rescale": lambda s: pol.rescale(s.signed),
    "RescaleSchedule": scheduled,
    "dense_to_sparse.RigL": lambda s: (
        pol.dense_to_sparse.RigL(s.model, s.optimizer, every=1, end=9).state_dict(),
        s.model,
    ),
    "dense_to_sparse.SET": lambda s: (
        pol.dense_to_sparse.SET(s.model, s.optimizer, every=1, generator=s.draw).state_dict(),
        s.model,
    ),
    "dense_to_sparse.ACDC": lambda s: (
        pol.dense_to_sparse.ACDC(s.model, s.optimizer, density=0.2, switches=(0, 2)).switch(),
        s.model,
    ),
    "dense_to_sparse.GradualMagnitude": lambda s: pol.dense_to_sparse.GradualMagnitude(
        s.model, s.optimizer, density=0.2, begin=0, end=4, every=1
    ).state_dict(),
    "dense_to_sparse.acdc_switches": lambda s: pol.dense_to_sparse.acdc_switches("cifar10", 400),
    "dense_to_sparse.drop_and_grow": lambda s: pol.dense_to_sparse.drop_and_grow(
        s.plain[0].weight, s.masks["0.weight"], s.plain[0].weight.abs(), 5
    ),
    "dense_to_sparse.threshold_weights": thresholded,
    "dense_to_sparse.soft_mask": lambda s: pol.dense_to_sparse.soft_mask(thresholded(s)),
    "dense_to_sparse.soft_density": lambda s: pol.dense_to_sparse.soft_density(thresholded(s)),
    "dense_to_sparse.weights_before_threshold": lambda s: (
        pol.dense_to_sparse.weights_before_threshold(thresholded(s))
    ),
    "dense_to_sparse.threshold_report": lambda s: str(
        pol.dense_to_sparse.threshold_report(thresholded(s))
    ),
    "dense_to_sparse.extract_soft_mask": lambda s: (
        str(pol.dense_to_sparse.extract_soft_mask(thresholded(s), s.optimizer)),
        s.model,
    ),
    "start_from_signs": lambda s: (
        str(pol.start_from_signs(s.plain, s.ticket, s.masks)),
        s.plain,
    ),
    "start_from_magnitudes": lambda s: (
        str(pol.start_from_magnitudes(s.plain, s.start, s.masks, generator=s.draw)),
        s.plain,
    ),
    "start_from_mask": lambda s: (str(pol.start_from_mask(s.plain, s.masks)), s.plain),
    "inner_scaling": lambda s: pol.inner_scaling(s.signed),
    "frobenius_decay": lambda s: float(pol.frobenius_decay(s.signed).detach()),
    "interpolate_norms": lambda s: pol.interpolate_norms(s.plain, generator=s.draw),
    "norm_alpha": lambda s: pol.norm_alpha(s.normed),
    "norm_alpha_state": lambda s: pol.norm_alpha_state(s.normed),
    "load_norm_alpha_state": lambda s: pol.load_norm_alpha_state(s.normed, s.state),
    "set_norm_alpha": lambda s: (pol.set_norm_alpha(s.normed, 0.5), s.normed)[1],
    "merge": lambda s: pol.merge(s.model, optimizer=s.optimizer),
    "merge factors": lambda s: pol.merge(s.signed),
    "merge norms": lambda s: pol.merge(s.normed),
    "dense_state_dict": lambda s: [pol.dense_state_dict(m) for m in (s.model, s.signed, s.normed)],
    "enforce_in_step": enforced,
    "save": lambda s: (pol.save(s.signed, s.folder / "b"), (s.folder / "b").read_bytes())[1],
    "load": lambda s: pol.load(s.plain, s.file),
    "RewindPoint": lambda s: pol.RewindPoint.capture(s.model, s.optimizer, s.scheduler),
    "RewindPoint, restored": lambda s: s.start.restore_weights(s.model),
    "RewindPoint, restored in factors": lambda s: s.start.restore_weights(s.signed),
    "signed_mask": lambda s: pol.signed_mask(s.model, include=nn.Linear),
    "SignedMask": lambda s: s.ticket.apply(s.plain),
    "SignedMask in factors": lambda s: s.ticket.apply(s.signed),
    "SignedMask, loaded": lambda s: pol.SignedMask.load(s.ticket_file),
    "sign_flips": lambda s: pol.sign_flips(s.start, s.model),
    "SignTracker": track,
    "sharpness": lambda s: round(pol.sharpness(s.model, mse_loss, s.batches, tolerance=0.1), 3),
    "recalibrate_batch_norm": lambda s: (
        pol.recalibrate_batch_norm(s.model, [s.x]),
        s.model,
    ),
    "summary": lambda s: [pol.summary(each, s.x).to_dict() for each in s.models()],
    "error_barrier": lambda s: pol.error_barrier(
        s.plain, s.start, s.model, s.evaluate, points=3, bn="keep"
    ),
    "sgd_noise_stability": stable,
    "init_noise_stability": lambda s: pol.init_noise_stability(
        lambda seed: copy.deepcopy(s.other), lambda m, i: m, s.evaluate, points=3, bn="keep"
    ),
    "densities.uniform": lambda s: pol.densities.uniform(s.model, 0.3),
    "densities.erk": lambda s: pol.densities.erk(s.model, 0.3),
    "densities.balanced": lambda s: pol.densities.balanced(s.model, 0.3),
    "scores.magnitude": lambda s: pol.scores.magnitude("w", s.weights["w"]),
    "scores.random": lambda s: pol.scores.random("w", s.weights["w"], generator=s.draw),
    "scores.large_final_same_sign": lambda s: pol.scores.large_final_same_sign(s.init)(
        "w", s.weights["w"]
    ),
    "scores.large_final_diff_sign": lambda s: pol.scores.large_final_diff_sign(s.init)(
        "w", s.weights["w"]
    ),
    "scores.magnitude_increase": lambda s: pol.scores.magnitude_increase(s.init)(
        "w", s.weights["w"]
    ),
    "scores.snip": lambda s: pol.scores.snip(s.model, mse_loss, s.batches),
    "scores.grasp": lambda s: pol.scores.grasp(s.model, mse_loss, s.batches),
    "scores.synflow": lambda s: pol.scores.synflow(s.model, s.x, density=0.1, steps=3),
    "deploy.compress": compressed,
    "compact": compact,
    "expand": expand,
    "reset_parameters": reset,
    "assignment": assign,
}


def described(thing: Any) -> Any:
    """Return everything of a result in a form that compares: tensors by their bytes."""
    if isinstance(thing, nn.Module):
        return fingerprint(thing.state_dict())
    if isinstance(thing, (pol.RewindPoint, pol.SignedMask)):
        return described(vars(thing))
    if isinstance(thing, dict):
        return [(key, described(value)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [described(each) for each in thing]
    return fingerprint(thing) if isinstance(thing, (Tensor, bytes)) else repr(thing)


def tensors_of(thing: Any) -> list[Tensor]:
    """Return every tensor in a result."""
    if isinstance(thing, nn.Module):
        leaves = [*thing.parameters(), *thing.buffers()]
        return leaves + [p.grad for p in leaves if p.grad is not None]
    if isinstance(thing, (pol.RewindPoint, pol.SignedMask)):
        return tensors_of(vars(thing))
    if isinstance(thing, dict):
        return [each for value in thing.values() for each in tensors_of(value)]
    if isinstance(thing, (list, tuple)):
        return [each for value in thing for each in tensors_of(value)]
    return [thing] if isinstance(thing, Tensor) else []
