"""One optimizer, several, or none."""

import pytest
import torch

from polarity.optimizers.given import as_optimizers


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)


def test_one_several_and_none_become_a_tuple():
    one, two = sgd(), sgd()
    assert as_optimizers(None) == ()
    assert as_optimizers(one) == (one,)
    assert as_optimizers([one, two]) == as_optimizers((one, two)) == (one, two)


def test_another_type_is_named_with_its_place():
    with pytest.raises(TypeError, match=r"optimizer is an int, expected a torch\.optim\.Optimizer"):
        as_optimizers(3)
    with pytest.raises(TypeError, match=r"optimizer\[1\] is a str"):
        as_optimizers([sgd(), "adam"])


def test_an_empty_list_and_an_optimizer_given_twice_are_refused():
    one = sgd()
    with pytest.raises(ValueError, match=r"optimizer=\[\], expected at least one"):
        as_optimizers([])
    with pytest.raises(ValueError, match="holds one optimizer twice"):
        as_optimizers([one, one])
