"""The ImageNet command on two gloo ranks: masks, weights and statistics are the same on both."""

import hashlib
import os
from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch

from benchmarks.papers.sign_in import imagenet
from tests.benchmarks.papers.sign_in.test_imagenet import DENSITIES, METHODS, SYNTHETIC, UPDATES
from tests.helpers import from_ranks

pytestmark = pytest.mark.slow
# Two images are too few for batch normalisation on a rank.
WORDS = [*SYNTHETIC, "--synthetic", "32", "--batch-size", "8"]
RUNS = ["acdc+sign_in", "rigl", "str"]


def digest(tensors):
    every = hashlib.sha256()
    for value in tensors:
        every.update(value.detach().contiguous().numpy().tobytes())
    return every.hexdigest()


def run(words, seen):
    """Run the command, keep what it trained, and return its records and what it printed."""
    attach, printed = imagenet.attach, StringIO()
    imagenet.attach = lambda *arguments: seen.append(attach(*arguments)) or seen[-1]
    try:
        with redirect_stdout(printed):
            records = imagenet.main(["imagenet-resnet50", *WORDS, *words])
    finally:
        imagenet.attach = attach
    return records, printed.getvalue().count("'epoch'")


def one_rank(rank, folder):
    torch.manual_seed(rank)  # what is drawn from the global generator would differ
    os.environ["RANK"] = str(rank)
    left = {}
    for method in RUNS:
        seen = []
        records, printed = run(METHODS[method], seen)
        (attached,) = seen
        states = attached.optimizer.state.values()
        momentum = [value for state in states for value in state.values() if value is not None]
        digests = digest(attached.model.state_dict().values()), digest(momentum)
        left[method] = [records, printed, *digests]
    imagenet._digest = lambda model: rank
    try:
        run(["--epochs", "1"], [])
    except RuntimeError as error:
        left["differing"] = str(error)
    return left


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), 2)


@pytest.mark.parametrize("method", RUNS)
def test_masks_weights_statistics_and_momentum_are_the_same_on_both_ranks(ranks, method):
    (records, printed, *states), (others, unprinted, *other_states) = (r[method] for r in ranks)
    assert records == others
    assert states == other_states
    assert (printed, unprinted) == (len(records), 0)
    if method in DENSITIES:
        densities = [record["density"] for record in records]
        assert densities == pytest.approx(DENSITIES[method], abs=1e-4)
    if method in UPDATES:
        assert [record["mask_updates"] for record in records] == UPDATES[method]


def test_ranks_whose_masks_differ_stop_on_both(ranks):
    for rank, left in enumerate(ranks):
        assert left["differing"] == f"masks: {rank} on rank {rank}, expected the same on all"
