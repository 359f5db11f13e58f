"""Few set bits among many."""

import numpy as np
import pytest

from polarity._bits.bits import few_places


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
def test_few_places_are_those_of_the_set_bits(share):
    bools = np.random.default_rng(0).random(1003) < share
    packed = np.packbits(bools, bitorder="little")
    count = int(bools.sum())
    assert few_places(packed, count).tolist() == np.flatnonzero(bools).tolist()
    assert count == 0 or few_places(packed, count - 1) is None
