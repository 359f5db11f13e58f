"""One run of the machine: a model, what trains it, its reference, and how the two are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import compacted
from tests.laws.refusals import fingerprint
from tests.machine.conversions import close
from tests.machine.kinds import Machine, Setting
from tests.machine.reference import Moment, Reference, Weight, inside


@dataclass
class Step:
    """An operation with its arguments drawn.

    Attributes:
        what: the call, for the list of a failed run.
        act: does it to the model.
        expect: does the same to the reference; it is given what ``act`` returned.
        refused: the type of the error that ``act`` must raise; the run is then as it was.
    """

    what: str
    act: Callable[[], Any]
    expect: Callable[[Any], None] = lambda result: None
    refused: type[Exception] | tuple[type[Exception], ...] | None = None
    says: str = ""


def recompact(model: nn.Module, optimizer: Any, weights: Sequence[Weight]) -> None:
    """Store the survivors of some weights alone, as they are stored in the reference's view."""
    for multiplies in (False, True):
        if names := tuple(w.name for w in weights if w.multiplies == multiplies):
            report = pol.compact(model, optimizer=optimizer, targets=names)
            assert isinstance(report, pol.CompactReport)
            assert {weight.name for weight in report} == set(names)
            compacted(model, optimizer, names=names, multiplies=multiplies)


class Run:
    """A model in the middle of its life, and the reference that has lived through the same."""

    def __init__(self, kind: Machine, setting: Setting, seed: int) -> None:
        self.kind, self.setting = kind, setting
        self.model = kind.fresh(seed)
        self.reference = Reference(kind.fresh(seed), setting)
        self.build_optimizers()
        self.handle: pol.StepEnforcement | None = None
        self.captured: tuple[pol.RewindPoint, Moment] | None = None
        self.batches = torch.Generator().manual_seed(seed)
        self.check()

    def build_optimizers(self) -> None:
        compact = self.compact_weights()
        if compact:  # groups are made by shape
            pol.expand(self.model)
        self.optimizers = self.setting.build(self.named_leaves())
        if compact:
            recompact(self.model, self.optimizer, compact)
        for leaf in (leaf for weight in compact for leaf in weight.leaves):
            leaf.grad = None
        schedule = self.setting.schedule
        self.schedules = [] if schedule is None else [schedule(each) for each in self.optimizers]

    def compact_weights(self) -> list[Weight]:
        """Return the weights of which the model stores survivors alone."""
        return [w for w in self.reference.weights.values() if w.compact]

    def named_leaves(self) -> list[tuple[str, nn.Parameter]]:
        """Return the model's own parameters in the order of the plain model."""
        held = dict(self.model.named_parameters(remove_duplicate=False))
        return [(key, held[key]) for key, _ in self.reference.leaves()]

    def stored(self, weight: Weight) -> list[Tensor]:
        held = dict(self.model.named_parameters(remove_duplicate=False))
        return [held[key] for key in weight.keys(weight.name)]

    def seen(self, weight: Weight) -> list[Tensor]:
        """Return what is stored with zeros outside the mask, if survivors alone are stored."""
        live = weight.mask.bool() if weight.compact else None
        return [leaf if live is None else torch.zeros_like(weight.mask).masked_scatter(live, leaf)
                for leaf in self.stored(weight)]  # fmt: skip

    @property
    def optimizer(self) -> Any:
        """What is passed as ``optimizer=``: one, or a list of all."""
        return self.optimizers[0] if len(self.optimizers) == 1 else self.optimizers

    @property
    def scheduler(self) -> Any:
        return self.schedules[0] if self.schedules else None

    def sizes(self) -> dict[str, int]:
        """Return how many entries the model stores of each compact weight."""
        return {weight.name: int(weight.mask.sum()) for weight in self.compact_weights()}

    def not_told(self, before: dict[str, int]) -> None:
        """See that optimizers that remember another size raise, and build new ones.

        Gradients are None while they try, so that nothing else moves.
        """
        changed = {name for name, size in self.sizes().items() if size != before[name]}
        leaves = [leaf for name in changed for leaf in self.reference.weights[name].leaves]
        if not any(self.reference.state(leaf) for leaf in leaves):
            return
        held = [p for each in self.optimizers for g in each.param_groups for p in g["params"]]
        kept = [p.grad for p in held]
        for p in held:
            p.grad = None
        raised = 0
        for each in self.optimizers:
            try:
                each.step()
            except RuntimeError as error:
                raised += "as it no longer is" in str(error)
        assert raised, "an optimizer would have gone on with the state of another shape"
        for p, gradient in zip(held, kept, strict=True):
            p.grad = gradient
        self.build_optimizers()
        self.reference.build_optimizers()

    def batch(self) -> tuple[Tensor, ...]:
        return self.kind.inputs(self.batches)

    def move_to(self, model: nn.Module) -> None:
        """Continue with another model that holds the same: new optimizers take over the state."""
        self.model, self.handle = model, None
        old, schedules = self.optimizers, self.schedules
        self.build_optimizers()
        for new, before in zip(self.optimizers, old, strict=True):
            new.load_state_dict(before.state_dict())
        for new, before in zip(self.schedules, schedules, strict=True):
            new.load_state_dict(before.state_dict())
        for optimizer in self.reference.optimizers:
            optimizer.load_state_dict(
                optimizer.state_dict()
            )  # which converts to the weight's dtype
        for weight in self.reference.weights.values():
            weight.in_step = False
            for leaf in weight.leaves:
                leaf.grad = None

    # How the two are compared.

    def perform(self, step: Step) -> None:
        """Do an operation to both, and compare them; a refused one must change nothing."""
        if step.refused is not None:
            before = self.fingerprint()
            error = None
            try:
                step.act()
            except step.refused as raised:
                error = str(raised)  # the error itself would keep tensors of its frames
            assert error is not None, "the call was not refused"
            assert step.says in error, f"{step.says!r} is not in {error!r}"
            differences = self.different(before, self.fingerprint())
            assert not differences, f"the refused call changed {differences}"
            return
        start = torch.get_rng_state()
        result = step.act()
        after = torch.get_rng_state()
        torch.set_rng_state(start)
        step.expect(result)
        assert torch.equal(torch.get_rng_state(), after), "another position of the generator"
        self.check()

    def check(self) -> None:
        self.check_weights()
        self.check_optimizers()
        self.check_modules()

    @torch.no_grad()
    def check_weights(self) -> None:
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        buffers = dict(self.model.named_buffers(remove_duplicate=False))
        expected = {k for w in self.reference.weights.values() for n in w.names for k in w.keys(n)}
        assert parameters.keys() == expected, parameters.keys() ^ expected
        for weight in self.reference.weights.values():
            first = [parameters[key] for key in weight.keys(weight.name)]
            for name in weight.names:
                for key, mine, one in zip(weight.keys(name), weight.leaves, first, strict=True):
                    theirs = parameters[key]
                    assert theirs is one, f"{key} is no longer tied to {weight.name}"
                    assert theirs.requires_grad == mine.requires_grad, f"requires_grad of {key}"
                    self._agree(weight, mine, theirs, key)
                    assert (mine.grad is None) == (theirs.grad is None), f"gradient of {key}"
                    if mine.grad is not None:
                        self._agree(weight, mine.grad, theirs.grad, f"gradient of {key}")
                if weight.masked:
                    assert torch.equal(buffers[f"{inside(name)}0.mask"], weight.mask), name
                if weight.form == "sign_in":
                    assert float(buffers[f"{inside(name)}0.beta"]) == weight.beta
                if weight.form == "norm":
                    same(weight.initial, buffers[f"{inside(name)}0.initial"], name)

    def check_optimizers(self) -> None:
        leaves = {id(mine): (weight, key, theirs)
                  for weight in self.reference.weights.values()
                  for key, mine, theirs in zip(weight.keys(weight.name), weight.leaves,
                                               self.stored(weight), strict=True)}  # fmt: skip
        for mine, theirs in zip(self.reference.optimizers, self.optimizers, strict=True):
            for one, other in zip(mine.param_groups, theirs.param_groups, strict=True):
                assert [id(leaves[id(p)][2]) for p in one["params"]] == list(
                    map(id, other["params"])
                )
                options = [{k: v for k, v in g.items() if k != "params"} for g in (one, other)]
                assert repr(options[0]) == repr(options[1]), options
            assert len(mine.state) == len(theirs.state), "another number of states"
            for leaf, state in mine.state.items():
                weight, key, its = leaves[id(leaf)]
                self._agree_states(weight, state, theirs.state[its], key)
        for mine, theirs in zip(self.reference.schedules, self.schedules, strict=True):
            assert mine.state_dict().items() >= {"last_epoch": theirs.last_epoch}.items()
        for weight in self.reference.weights.values():
            weight.rounded = False

    def _agree_states(self, weight: Weight, mine: Any, theirs: Any, key: str) -> None:
        assert mine.keys() == theirs.keys(), f"state of {key}: {mine.keys() ^ theirs.keys()}"
        for entry, value in mine.items():
            other = theirs[entry]
            # LBFGS adds up the gradients of all its parameters.
            if entry == "H_diag" and isinstance(value, Tensor):
                close(value, other, f"{entry} of {key}")
            elif isinstance(value, Tensor):
                self._agree(weight, value, other, f"{entry} of {key}")
            elif not isinstance(value, (list, tuple)):
                assert value == other, f"{entry} of {key}: {other}, expected {value}"

    def _agree(self, weight: Weight, mine: Tensor, theirs: Tensor, what: str) -> None:
        """Compare exactly; where another order of arithmetic is allowed, closely, and adopt."""
        if self.compact_weights() and mine.is_floating_point() and mine.dim() > 0:
            self._agree_compact(weight, mine, theirs, what)
        elif weight.rounded and mine.is_floating_point() and mine.dim() > 0:
            assert mine.dtype == theirs.dtype, what
            close(mine.detach(), theirs.detach(), what)
            with torch.no_grad():
                mine.copy_(theirs)
        else:
            same(mine, theirs, what)

    @torch.no_grad()
    def _agree_compact(self, weight: Weight, mine: Tensor, theirs: Tensor, what: str) -> None:
        """Compare survivors where nothing else is stored, up to the order of sums, and adopt."""
        assert mine.dtype == theirs.dtype, what
        per_entry = weight.compact and mine.shape == weight.mask.shape
        live = weight.mask.bool() if per_entry else torch.ones_like(mine, dtype=torch.bool)
        nearly(mine[live], theirs.reshape(-1), what)
        mine[live] = theirs.reshape(-1)

    @torch.no_grad()
    def check_modules(self) -> None:
        twin, reference = self.reference.twin, self.reference
        modules = dict(self.model.named_modules())
        for name, module in twin.named_modules():
            assert modules[name].training == module.training, f"mode of {name}"
        buffers = dict(self.model.named_buffers())
        for name, value in twin.named_buffers():
            if self.compact_weights() and value.is_floating_point():
                nearly(value, buffers[name], name)
                value.copy_(buffers[name])
            same(value, buffers[name], name)
        keys = {key for weight in reference.weights.values() for name in weight.names
                for key in (*weight.keys(name), *weight.buffer_keys(name))}  # fmt: skip
        state = self.model.state_dict()
        assert state.keys() == keys | {n for n, _ in twin.named_buffers()}, "keys of the state_dict"
        masked = reference.masked()
        if not masked and not reference.norms():
            assert list(state) == list(twin.state_dict()), "order of the plain state_dict"
        dense = pol.dense_state_dict(self.model)
        assert dense.keys() == twin.state_dict().keys()
        for weight in reference.weights.values():
            for each in weight.names:
                same(weight.effective.detach(), dense[each], f"dense {each}")
        for name, value in reference.values().items():
            path, _, last = name.rpartition(".")
            same(value, getattr(self.model.get_submodule(path), last), f"what {name} reads as")
        if masked:
            self._check_masks(masked)

    def _check_masks(self, masked: dict[str, Weight]) -> None:
        given = pol.masks(self.model)
        assert list(given) == list(masked)
        live = total = 0
        for name, weight in masked.items():
            assert torch.equal(given[name], weight.mask.bool()), f"mask of {name}"
            live, total = live + int(weight.mask.sum()), total + weight.mask.numel()
        assert pol.density(self.model) == live / total
        assert pol.sparsity(self.model) == 1 - live / total

    def fingerprint(self) -> dict[str, Any]:
        """Everything that a refused call must leave alone: bytes, identities, classes, hooks."""
        model = self.model
        named = dict(model.named_parameters(remove_duplicate=False))
        point = self.captured[0] if self.captured else None
        return {
            "modules": [(n, id(m), type(m), m.training, [*m._parameters], [*m._buffers],
                         [*m._forward_pre_hooks], [*m._forward_hooks],
                         [*m._load_state_dict_pre_hooks], getattr(m, "enforce", None),
                         id(getattr(m, "in_step", None))) for n, m in model.named_modules()],
            "parameters": [(n, id(p), p.requires_grad, id(p.grad), sorted(vars(p)),
                            len(p._backward_hooks or ())) for n, p in named.items()],
            "values": fingerprint({n: p.float() for n, p in named.items()}),
            "gradients": fingerprint({n: p.grad.float() for n, p in named.items()
                                      if p.grad is not None}),
            "buffers": fingerprint({n: b.double() for n, b in model.named_buffers()}),
            "groups": [[{**g, "params": list(map(id, g["params"]))} for g in o.param_groups]
                       for o in self.optimizers],
            "states": [[(id(p), _bytes(s)) for p, s in o.state.items()] for o in self.optimizers],
            "hooks": [[*o._optimizer_step_post_hooks] for o in self.optimizers],
            "schedules": [repr(s.state_dict()) for s in self.schedules],
            "point": point and _bytes([point.weights, point.optimizer, repr(point.scheduler)]),
            "generator": fingerprint(torch.get_rng_state()),
        }  # fmt: skip

    @staticmethod
    def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
        return [part for part in one if one[part] != other[part]]


def _bytes(thing: Any) -> Any:
    """Return nested containers with tensors as bytes, bfloat16 as float32."""
    if isinstance(thing, Tensor):
        return fingerprint(thing.float() if thing.dtype == torch.bfloat16 else thing)
    if isinstance(thing, dict):
        return [(key, _bytes(value)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [_bytes(each) for each in thing]
    return thing


def nearly(mine: Tensor, theirs: Tensor, what: str) -> None:
    """Compare up to the order in which a few dozen terms are added."""
    rtol = max(1e-4, 16 * torch.finfo(mine.dtype).eps)
    torch.testing.assert_close(theirs, mine, rtol=rtol, atol=rtol / 10, equal_nan=True,
                               msg=lambda text: f"{what}: {text}")  # fmt: skip


def same(mine: Tensor, theirs: Tensor, what: str) -> None:
    """Compare exactly: NaN equals itself, and so do the two zeros."""
    assert mine.dtype == theirs.dtype, f"{what}: {theirs.dtype}, expected {mine.dtype}"
    if not torch.equal(mine, theirs):
        torch.testing.assert_close(theirs, mine, rtol=0, atol=0, equal_nan=True,
                                   msg=lambda text: f"{what}: {text}")  # fmt: skip
