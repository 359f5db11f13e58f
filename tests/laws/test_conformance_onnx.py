"""Every form of a layer goes to ONNX by both exporters; compact weights by the newer alone."""

from typing import Any

import pytest
import torch

import polarity as pol
from tests.forms import Form
from tests.helpers import feed, outputs
from tests.laws.explicit import close, converted
from tests.laws.grid import EVERY_FORM
from tests.models import KINDS, WIDE, Kind

pytest.importorskip("onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "export"])
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], WIDE], ids=lambda kind: kind.name)
@EVERY_FORM
def test_a_layer_goes_to_onnx_by_both_exporters(
    form: Form, kind: Kind, dynamo: bool, tmp_path: Any
) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    model, inputs = converted(kind, form), feed(kind)
    file = tmp_path / "layer.onnx"
    if form.compact and not dynamo:  # it reads the dense state_dict, which has no survivors
        with pytest.raises(RuntimeError, match="Cannot insert a Tensor that requires grad"):
            torch.onnx.export(model, inputs, str(file), dynamo=dynamo)
        pol.expand(model)
    torch.onnx.export(model, inputs, str(file), dynamo=dynamo)
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(file))
    feeds = dict(zip(evaluator.input_names, (x.numpy() for x in inputs), strict=True))
    close(torch.from_numpy(evaluator.run(None, feeds)[0]), outputs(model, inputs))
