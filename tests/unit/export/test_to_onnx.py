"""One step to one ONNX file."""

from __future__ import annotations

import dataclasses

import onnx
import pytest
from support.bundle import bundle_model

from mirasol.core.errors import MirasolError
from mirasol.export.io_spec import StepGraph, step_graphs
from mirasol.export.onnx import to_onnx
from mirasol.runtime.contract import TensorSpec


@pytest.fixture(scope="module")
def latent() -> StepGraph:
    return step_graphs(bundle_model())[1]


def test_equal_weights_give_equal_bytes(latent: StepGraph) -> None:
    assert to_onnx(latent, 18) == to_onnx(step_graphs(bundle_model())[1], 18)


@pytest.mark.parametrize("opset", [18, 20])
def test_the_opset_is_the_one_asked_for(latent: StepGraph, opset: int) -> None:
    model = onnx.load_from_string(to_onnx(latent, opset))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]


def test_nothing_of_this_machine_is_written(latent: StepGraph) -> None:
    data = to_onnx(latent, 18)
    assert b"site-packages" not in data
    assert b".py" not in data


def test_no_dimension_is_left_open(latent: StepGraph) -> None:
    model = onnx.load_from_string(to_onnx(latent, 18))
    for value in (*model.graph.input, *model.graph.output):
        assert all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim), value.name


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (TensorSpec("h", "float32", (1, 3, 25), "features"), r"exported outputs .*\(1, 3, 24\).*\(1, 3, 25\)"),
        (TensorSpec("h", "float16", (1, 3, 24), "features"), "exported outputs .*float32.*float16"),
    ],
)
def test_an_export_that_differs_from_the_signature_is_refused(
    latent: StepGraph, output: TensorSpec, message: str
) -> None:
    spec = dataclasses.replace(latent.spec, outputs=(output, *latent.spec.outputs[1:]))
    with pytest.raises(MirasolError, match=message):
        to_onnx(dataclasses.replace(latent, spec=spec), 18)
