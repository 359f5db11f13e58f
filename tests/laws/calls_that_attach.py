"""The table of public calls, first half: those that attach, read and write what is attached."""

import torch
from torch import nn

import polarity as pol
from polarity import parametrizations
from tests.laws import wrong_mappings as maps
from tests.laws import wrong_values as kinds
from tests.laws.calls import Arg, Call, bare, just, method, the
from tests.laws.refusals import W0, W2
from tests.laws.wrong_values import value
from tests.models import generator


def drawn(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.normal_(parameter)


def model(path: str) -> Arg:
    return Arg(kinds.MODEL, the(path))


def holder(path: str, *also: str) -> Arg:
    return Arg(kinds.OPTIMIZER | kinds.OF_ANOTHER_MODEL, the(path), also)


# Of a path that names a file or a folder, the path itself stands for the parameter.
FILE = r"(path|is a folder|there is no folder|does not exist|notes\.txt)"
NEW_FILE = Arg(kinds.PATH | kinds.NEW_FILE, the("new_file"), named=FILE)


def old_file(path: str) -> Arg:
    return Arg(kinds.PATH | kinds.OLD_FILE, the(path), named=FILE)


MODEL = model("model")
SIGNED, NORMED = model("signed"), model("normed")
FLAG, NO = Arg(kinds.FLAG, just(True)), Arg(kinds.FLAG, just(False))
WATCH = Arg(kinds.PROGRESS, just(lambda items: items))
DRAW = Arg(kinds.GENERATOR, lambda world: generator())
SELECTORS = {
    "targets": Arg(kinds.SELECTOR, just([W0, W2])),
    "exclude": Arg(kinds.SELECTOR, just("2")),
}
NORMS = {
    "targets": Arg(kinds.SELECTOR, just(nn.BatchNorm1d)),
    "exclude": Arg(kinds.SELECTOR, just("1.bias")),
}
MASKS = Arg(
    maps.zeros_and_ones(the("masks"), whole=False) | maps.unknown_name(the("masks")),
    the("masks"),
)
BETAS = just({W0: 0.5, W2: 2.0})
FACTORS = {
    "optimizer": holder("signed_optimizer", "momentum"),
    "momentum": Arg(kinds.CHOICE, just("zero"), ("optimizer",)),
}
RIGHT = {"epoch": 1, "every": 2, "until": 3, "momentum": "keep"}
SCHEDULE_STATE = kinds.STATE | {
    "empty": value({}, "missing 'epoch'"),
    "an unknown entry": value({**RIGHT, "lr": 1}, "'lr'"),
    "a negative epoch": value({**RIGHT, "epoch": -1}, "'epoch'.*-1"),
    "a fractional epoch": value({**RIGHT, "epoch": 1.5}, "'epoch'.*1.5"),
    "a period in words": value({**RIGHT, "every": "two"}, "'every'.*'two'"),
    "no period": value({**RIGHT, "every": 0}, "'every'.*0"),
    "an end before the start": value({**RIGHT, "until": 0}, "'until'.*0"),
    "an unknown rule": value({**RIGHT, "momentum": "kept"}, "'momentum'.*'kept'"),
    "a rule without optimizer": value({**RIGHT, "momentum": "zero"}, "'momentum'.*'zero'"),
}

ATTACH: dict[str, Call] = {
    "find_targets": bare(pol.find_targets, model=MODEL, **SELECTORS),
    "mask_weights": bare(
        pol.mask_weights, model=model("plain"), **SELECTORS, masks=MASKS, verbose=FLAG
    ),
    "load_masks": bare(pol.load_masks, model=MODEL, masks=MASKS),
    "masks": bare(pol.masks, model=MODEL),
    "density": bare(pol.density, model=MODEL),
    "sparsity": bare(pol.sparsity, model=MODEL),
    "merge": bare(pol.merge, model=MODEL, optimizer=holder("optimizer"), verbose=FLAG),
    "dense_state_dict": bare(pol.dense_state_dict, model=MODEL),
    "save": bare(pol.save, model=MODEL, path=NEW_FILE),
    "load": bare(pol.load, model=model("plain"), path=old_file("model_file")),
    "enforce_in_step": bare(pol.enforce_in_step, model=MODEL, optimizer=holder("optimizer")),
    "StepEnforcement.project": method("enforcement.project"),
    "StepEnforcement.remove": method("enforcement.remove"),
    "sign_in": bare(
        pol.sign_in,
        model=MODEL,
        beta=Arg(
            kinds.POSITIVE
            | kinds.values(1e300, 1e-300, 1e-60)
            | {"{'a': 1}": value({"a": 1}, "missing '0.weight'")},
            just(0.5),
        ),
        **SELECTORS,
        optimizer=holder("optimizer"),
        verbose=FLAG,
    ),
    "compact": bare(
        pol.compact,
        always=("measure",),
        model=MODEL,
        example_inputs=Arg(kinds.INPUTS, just(torch.ones(2, 6))),
        optimizer=holder("optimizer"),
        **SELECTORS,
        margin=Arg(kinds.MARGIN | kinds.NONE, just(2.0), ("example_inputs",)),
        break_even=Arg(kinds.FRACTION, just(0.5)),
        measure=Arg(
            kinds.CALLABLE | kinds.NONE,
            just(lambda masked, compact: (2.0, 1.0)),
            ("example_inputs",),
        ),
        generator=DRAW,
        verbose=FLAG,
        progress=Arg(kinds.PROGRESS, WATCH.good, ("example_inputs",)),
    ),
    "expand": bare(pol.expand, model=model("compact"), optimizer=holder("compact_optimizer")),
    "rescale": bare(pol.rescale, model=SIGNED, **FACTORS),
    "RescaleSchedule": bare(
        pol.RescaleSchedule,
        model=SIGNED,
        every=Arg(kinds.COUNT, just(2)),
        until=Arg(kinds.COUNT, just(5)),
        **FACTORS,
    ),
    "RescaleSchedule.step": method("schedule.step"),
    "RescaleSchedule.state_dict": method("schedule.state_dict"),
    "RescaleSchedule.load_state_dict": method(
        "schedule.load_state_dict", state=Arg(SCHEDULE_STATE, just(RIGHT))
    ),
    "frobenius_decay": bare(pol.frobenius_decay, model=SIGNED),
    "inner_scaling": bare(pol.inner_scaling, model=SIGNED),
    "interpolate_norms": bare(
        pol.interpolate_norms,
        model=model("plain"),
        initial=Arg(maps.INITIAL_NORMS, the("initial_norms")),
        per_layer=FLAG,
        **NORMS,
        generator=DRAW,
        verbose=FLAG,
    ),
    "reinitialize": bare(
        pol.reinitialize,
        model=MODEL,
        init=Arg(kinds.CALLABLE, just(drawn)),
        generator=DRAW,
    ),
    "norm_alpha": bare(pol.norm_alpha, model=NORMED),
    "norm_alpha_state": bare(pol.norm_alpha_state, model=NORMED),
    "load_norm_alpha_state": bare(
        pol.load_norm_alpha_state,
        model=NORMED,
        state=Arg(maps.STREAM, lambda w: pol.norm_alpha_state(w.normed)),
    ),
    "set_norm_alpha": bare(
        pol.set_norm_alpha, model=NORMED, alpha=Arg(kinds.ALPHA | kinds.NONE, just(0.5))
    ),
    "MaskedWeight": bare(pol.MaskedWeight, mask=Arg(kinds.MASK, lambda w: w.masks[W0]), enforce=NO),
    "MaskedWeight.right_inverse": method(
        "masked_form.right_inverse", weight=Arg(kinds.WEIGHT, lambda w: w.init[W0])
    ),
    "SignInMW": bare(
        pol.SignInMW,
        mask=Arg(kinds.MASK, lambda w: w.masks[W0]),
        beta=Arg(kinds.POSITIVE | kinds.NONE, just(0.5)),
        enforce=NO,
    ),
    "SignInMW.right_inverse": method(
        "signed_form.right_inverse", weight=Arg(kinds.WEIGHT, lambda w: w.init[W0])
    ),
    "SoftThreshold": bare(
        pol.SoftThreshold,
        s=Arg(kinds.NUMBER | kinds.NONE, just(-4.0)),
        dtype=Arg(kinds.DTYPE, just(torch.float64)),
    ),
    "SoftThreshold.right_inverse": method(
        "soft_form.right_inverse", weight=Arg(kinds.FLOATING, lambda w: w.init[W0])
    ),
    "NormInterp": bare(
        pol.NormInterp,
        initial=Arg(kinds.FLOATING, lambda w: w.init[W0]),
        alpha=Arg(kinds.PLAIN_ALPHA | kinds.NONE, just(0.5)),
    ),
    "NormInterp.right_inverse": method(
        "norm_form.right_inverse",
        value=Arg(kinds.WEIGHT, lambda w: w.init[W0], named="(value|initial)"),
    ),
    "balanced_factors": bare(
        parametrizations.balanced_factors,
        weight=Arg(kinds.FLOATING, lambda w: w.init[W0]),
        beta=Arg(kinds.FACTOR | kinds.NONE, just(0.5)),
        dtype=Arg(kinds.DTYPE, lambda w: w.init[W0].dtype),
    ),
}
BY_NAME = {
    "sign_in": bare(pol.sign_in, model=MODEL, beta=Arg(maps.numbers(BETAS, -1.0), BETAS)),
}
