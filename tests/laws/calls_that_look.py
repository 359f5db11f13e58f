"""The table of public calls, third part: tickets, analysis and deployment."""

import torch
from torch import nn

import polarity as pol
from tests.laws import wrong_mappings as maps
from tests.laws import wrong_values as kinds
from tests.laws.calls import Arg, Call, bare, just, method, the
from tests.laws.calls_that_attach import (
    DRAW,
    FLAG,
    MODEL,
    NEW_FILE,
    NO,
    SELECTORS,
    WATCH,
    model,
    old_file,
)
from tests.laws.world import plain_net
from tests.laws.wrong_values import NONE, values

RECIPE = Arg(maps.RECIPE, just({"method": "IMP"}))
EVALUATE = Arg(kinds.CALLABLE | NONE, just(lambda network: 0.5))
TRAIN = Arg(kinds.CALLABLE | NONE, just(lambda network, seed: None))
# Of the tracked weights, some.
SOME = Arg(
    maps.zeros_and_ones(the("masks"), whole=False, empty=False) | maps.unknown_name(the("masks")),
    the("masks"),
)
LEARNED = Arg(
    maps.zeros_and_ones(the("masks"), whole=False) | maps.unknown_name(the("masks")) | NONE,
    the("masks"),
)
MOMENT = Arg(kinds.NAME | NONE | values("unknown"), just("init"))
ALONG = {
    "points": Arg(kinds.COUNT | NONE | values(1), just(3)),
    "bn": Arg(kinds.CHOICE | NONE, just("aws"), ("batches",)),
    "batches": Arg(kinds.BATCHES | kinds.ONCE, the("batches")),
    "forward": Arg(kinds.CALLABLE, just(lambda network, batch: network(batch[0])), ("batches",)),
    "generator": Arg(kinds.GENERATOR, DRAW.good, ("batches", "bn")),
    "progress": WATCH,
}
STABILITY = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "seeds": Arg(kinds.SEEDS, just((0, 1))),
    **ALONG,
}
STATE = Arg(maps.MODEL_STATE, lambda w: w.plain.state_dict())

LOOK: dict[str, Call] = {
    "signed_mask": bare(pol.signed_mask, model=MODEL, include=Arg(kinds.SELECTOR, just("2.bias"))),
    "SignedMask": bare(
        pol.SignedMask,
        signs=Arg(maps.TICKET_SIGNS, the("ticket.signs")),
        masks=Arg(maps.TICKET_MASKS, the("ticket.masks"), named="(masks?|masked)"),
        network=Arg(maps.SHAPES, the("ticket.network")),
        recipe=RECIPE,
    ),
    "SignedMask.apply": method("ticket.apply", model=MODEL, strict=NO, verbose=FLAG),
    "start_from_signs": bare(
        pol.start_from_signs,
        model=MODEL,
        signs=Arg(maps.mapping(the("weights")) | NONE | maps.OTHER_WEIGHTS, the("weights")),
        masks=LEARNED,
    ),
    "start_from_magnitudes": bare(
        pol.start_from_magnitudes,
        model=MODEL,
        magnitudes=Arg(maps.floating(the("weights")) | NONE | maps.OTHER_WEIGHTS, the("now")),
        masks=LEARNED,
        generator=DRAW,
    ),
    "start_from_mask": bare(pol.start_from_mask, model=MODEL, masks=LEARNED),
    "SignedMask.save": method("ticket.save", path=NEW_FILE, recipe=RECIPE),
    "SignedMask.load": bare(pol.SignedMask.load, path=old_file("ticket_file")),
    "sign_flips": bare(
        pol.sign_flips,
        before=Arg(maps.REFERENCE | NONE, the("weights")),
        after=Arg(maps.REFERENCE | NONE, the("model")),
        masks=Arg(maps.zeros_and_ones(the("masks"), whole=False), the("masks")),
    ),
    "SignTracker": bare(pol.SignTracker, model=MODEL, **SELECTORS, keep_steps=NO),
    "SignTracker.mark": method(
        "tracker.mark", moment=Arg(kinds.NAME | NONE | values("init"), just("late"))
    ),
    "SignTracker.signs": method("tracker.signs", moment=MOMENT),
    "SignTracker.step": method("tracker.step"),
    "SignTracker.flips": method(
        "tracker.flips",
        start=MOMENT,
        end=Arg(kinds.NAME | values("unknown"), just("warm-up")),
        masks=SOME,
    ),
    "SignTracker.since": method("tracker.since", start=MOMENT, masks=SOME),
    "SignTracker.cumulative": method("tracker.cumulative", masks=SOME),
    "SignTracker.state_dict": method("tracker.state_dict"),
    "SignTracker.load_state_dict": method(
        "tracker.load_state_dict", state=Arg(maps.TRACKER_STATE, lambda w: w.tracker.state_dict())
    ),
    "summary": bare(
        pol.summary,
        model=MODEL,
        inputs=Arg(kinds.INPUTS, just(torch.ones(2, 6))),
        examples=Arg(kinds.COUNT, just(2), ("inputs",)),
    ),
    "recalibrate_batch_norm": bare(
        pol.recalibrate_batch_norm,
        model=MODEL,
        batches=Arg(kinds.BATCHES | NONE, the("batches")),
        forward=Arg(kinds.CALLABLE, just(lambda network, batch: network(batch[0]))),
        progress=WATCH,
    ),
    "error_barrier": bare(
        pol.error_barrier,
        always=("batches",),
        model=model("plain"),
        state_a=STATE,
        state_b=STATE,
        evaluate=EVALUATE,
        **ALONG,
    ),
    "sgd_noise_stability": bare(
        pol.sgd_noise_stability, always=("batches",), model=model("plain"), **STABILITY
    ),
    "init_noise_stability": bare(
        pol.init_noise_stability,
        always=("batches",),
        build=Arg(kinds.BUILDER, just(lambda seed: plain_net())),
        **STABILITY,
    ),
    "sharpness": bare(
        pol.sharpness,
        model=MODEL,
        loss_fn=Arg(
            kinds.CALLABLE | NONE | {"a sum": kinds.value(nn.MSELoss(reduction="sum"), "'sum'")},
            just(nn.MSELoss()),
        ),
        batches=Arg(kinds.BATCHES | kinds.PAIRS | NONE, the("batches")),
        parameters=Arg(kinds.SELECTOR, just("2")),
        bn=Arg(kinds.CHOICE | NONE, just("keep")),
        dtype=Arg(kinds.DTYPE, just(torch.float64)),
        tolerance=Arg(kinds.POSITIVE | NONE | values(1.0), just(0.01)),
        max_iterations=Arg(kinds.COUNT | NONE, just(50)),
        generator=DRAW,
        progress=WATCH,
    ),
}
DEPLOY: dict[str, Call] = {
    "deploy.compress": bare(
        pol.deploy.compress,
        always=("measure",),
        model=model("plain"),
        example_inputs=Arg(kinds.INPUTS | NONE, just(torch.ones(2, 6))),
        break_even=Arg(kinds.FRACTION | NONE, just(0.5)),
        margin=Arg(kinds.MARGIN | NONE, just(2.0)),
        tolerance=Arg(kinds.TOLERANCE, just(0.5)),
        measure=Arg(kinds.CALLABLE | NONE, just(lambda dense, sparse: (2.0, 1.0))),
        generator=DRAW,
        verbose=FLAG,
        progress=WATCH,
    ),
    "deploy.decompress": bare(pol.deploy.decompress, model=model("plain")),
    "deploy.restore": bare(
        pol.deploy.restore,
        model=model("plain"),
        state_dict=Arg(kinds.STATE | maps.COMPRESSED, the("compressed")),
    ),
    "deploy.time_in_turns": bare(
        pol.deploy.time_in_turns,
        dense=Arg(kinds.CALLABLE | NONE, just(lambda: 0)),
        sparse=Arg(kinds.CALLABLE | NONE, just(lambda: 0)),
    ),
}
