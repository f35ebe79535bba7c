"""TensorRT-RTX parses and builds the graphs of every combiner; it needs no GPU for that. Skips where it is missing."""

from __future__ import annotations

import pytest
from support.bundle import CLIP, bundle_model
from support.model import tiny_model

from mirasol.export.io_spec import StepGraph, audio_graph, step_graphs
from mirasol.export.onnx import to_onnx

trt = pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")

COMBINERS = ("transformer", "ttm", "cls", "perceiver", "concat")


def graphs() -> dict[str, StepGraph]:
    found = {combiner: step_graphs(bundle_model(combiner))[0] for combiner in COMBINERS}
    found |= {graph.name: graph for graph in step_graphs(bundle_model())[1:]}
    found["overlap"] = step_graphs(tiny_model(overlap=2))[0]
    found["audio_step"] = audio_graph(CLIP)
    return found


@pytest.mark.parametrize("name", [*COMBINERS, "latent_step", "text_step", "overlap", "audio_step"])
def test_a_graph_parses_and_builds(name: str) -> None:
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse(to_onnx(graphs()[name], 20))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)
    assert builder.build_serialized_network(network, config) is not None
