"""Why a matrix of a model is left out."""

import pytest
import torch
from torch import nn

import polarity as pol


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_what_torch_jit_compiled_is_skipped_with_the_reason():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3)))
    model = nn.Sequential(scripted, nn.Linear(3, 3))
    found = pol.find_targets(model)
    assert list(found) == ["1.weight"]
    assert found.skipped == {"0.0.weight": "compiled by torch.jit: attach before torch.jit.script"}
    with pytest.warns(UserWarning, match="9 of 18 matrix entries are in reach"):
        report = pol.imp_prune(model, density=0)
    assert (report.survivors, report.total) == (0, 9)
    assert torch.equal(model(torch.ones(2, 3)), model[1].bias.expand(2, 3))
    for call in (pol.mask_weights, pol.imp_prune, lambda it: pol.find_targets(it, "*.weight")):
        with pytest.raises(ValueError, match=r"0\.weight is compiled by torch\.jit: attach before"):
            call(scripted)
    for each in (model, scripted):
        with pytest.raises(ValueError, match=r"is compiled by torch\.jit, whose parameters"):
            pol.reinitialize(each)
