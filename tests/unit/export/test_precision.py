"""Lower precisions: the same edges, fewer bytes, kept only if they answer as well."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from support.bundle import CLIP, bundle_model, export_tiny, tiny_bundle
from support.media import example, tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.export import onnx as exporter
from mirasol.export.config import ExportSpec
from mirasol.export.io_spec import StepGraph, step_graphs
from mirasol.export.quantize import lower, precisions_of
from mirasol.export.quantize_check import export_precisions
from mirasol.runtime.backends import NoKernelError
from mirasol.runtime.backends.onnxruntime import available, load
from mirasol.runtime.contract import AUDIO, read_contract
from mirasol.runtime.engine import Engine, relative
from mirasol.tasks.scoring.normalise import exact_match


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    media = write_media(folder / "media" / "0.mp4", frames=16, size=(16, 16), sound=tone(2.0))
    rows = [
        example(n, id=f"q{n}", media=f"media/{media.name}", start=s, prompt="is it red", answers=["red"], split=split)
        for n, (s, split) in enumerate(((None, "train"), (0.25, "val"), (0.5, "test")))
    ]
    write_manifest(folder / "manifest.jsonl", rows)
    build_shards(folder, folder / "shards", CLIP, ShardsSpec(workers=1))
    return folder / "shards"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


def ones(graph: StepGraph) -> dict[str, np.ndarray]:
    return {tensor.name: np.ones(tensor.shape, tensor.dtype) for tensor in graph.spec.inputs}


def always(_: str | None, __: Iterable[str]) -> bool:
    return True


def test_every_precision_is_a_bundle_that_says_which(bundle: Path, shards: Path) -> None:
    spec = ExportSpec(precisions="float16 int8 qdq", clips=1)
    report = export_precisions(bundle, shards, spec, split="test", correct=always)
    assert list(report) == ["float32", "float16", "int8", "qdq"]
    for name in ("float16", "int8", "qdq"):
        engine = Engine(bundle / name)
        assert engine.contract.model.precision == name
        assert engine.contract.graphs == Engine(bundle).contract.graphs
        engine.check_golden()
        assert report[name]["shipped"]
    assert report["float16"]["golden"] < 0.02


def test_norms_stay_in_float32(bundle: Path, shards: Path) -> None:
    export_precisions(bundle, shards, ExportSpec(precisions="float16", clips=1), split="test", correct=always)
    graph = onnx.load(bundle / "float16" / "latent_step.onnx").graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    casts = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    nodes = {kind: [node for node in graph.node if node.op_type == kind] for kind in ("Gemm", "LayerNormalization")}
    assert nodes["Gemm"]
    assert nodes["LayerNormalization"]
    assert {weights[node.input[1]] for node in nodes["Gemm"]} == {onnx.TensorProto.FLOAT16}
    assert {casts[node.input[0]] for node in nodes["LayerNormalization"]} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["float16", "int8", "qdq"])
def test_weights_in_files_of_their_own_give_the_same_graph(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = step_graphs(bundle_model())[1]
    feeds = ones(graph)
    lower(precision, tiny_bundle() / "latent_step.onnx", tmp_path / "inside.onnx", [feeds])
    monkeypatch.setattr(exporter, "EXTERNAL_BYTES", 1)
    exporter.write_onnx(graph, 18, tmp_path / "large.onnx", exporter.Weights(tmp_path / "large.onnx.data"))
    lower(precision, tmp_path / "large.onnx", tmp_path / "outside.onnx", [feeds])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("inside.onnx", "large.onnx", "large.onnx.data", "outside.onnx", "outside.onnx.data")
    }
    assert (tmp_path / "outside.onnx").stat().st_size < (tmp_path / "inside.onnx").stat().st_size
    inside, outside = (load(tmp_path / f"{name}.onnx", graph.spec, 1)(feeds)["h"] for name in ("inside", "outside"))
    assert np.array_equal(inside, outside)


def test_a_bundle_with_weights_in_files_of_their_own_is_lowered(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "EXTERNAL_BYTES", 1)
    bundle = export_tiny(tmp_path)
    spec = ExportSpec(precisions="int8", clips=1)
    report = export_precisions(bundle, shards, spec, split="test", correct=always)
    contract = Engine(bundle / "int8").contract
    assert {f"{graph.file}.data" for name, graph in contract.graphs.items() if name != AUDIO} < set(contract.files)
    assert report["int8"]["bytes"] < report["float32"]["bytes"]


def test_bfloat16_is_not_shipped_where_nothing_can_measure_it(bundle: Path, shards: Path) -> None:
    (bundle / "bfloat16").mkdir()  # of an earlier export
    spec = ExportSpec(precisions="bfloat16", clips=1)
    report = export_precisions(bundle, shards, spec, split="test", correct=always)
    if "cuda" in available():
        pytest.skip("onnxruntime of this machine may compute it")
    assert set(report["bfloat16"]) == {"shipped", "not_measured", "not_shipped"}
    assert not report["bfloat16"]["shipped"]
    assert "Could not find an implementation for" in report["bfloat16"]["not_measured"]
    assert not [path for path in bundle.iterdir() if path.is_dir()]


def test_products_are_in_bfloat16_and_nothing_else(tmp_path: Path) -> None:
    graph = step_graphs(bundle_model())[1]
    lower("bfloat16", tiny_bundle() / "latent_step.onnx", tmp_path / "h.onnx", [])
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "h.onnx"), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    half = {
        node.op_type: {types[name] for name in node.output}
        for node in model.graph.node
        if onnx.TensorProto.BFLOAT16 in {types.get(name) for name in node.input}
    }
    bfloat16, float32 = {onnx.TensorProto.BFLOAT16}, {onnx.TensorProto.FLOAT}
    assert half == {"Gemm": bfloat16, "MatMul": bfloat16, "Cast": float32}
    assert types["h"] == onnx.TensorProto.FLOAT
    feeds = ones(graph)
    expected = load(tiny_bundle() / "latent_step.onnx", graph.spec, 1)(feeds)["h"]
    found = ReferenceEvaluator(model).run(["h"], feeds)[0]
    assert 0 < relative(found, expected) < 0.02


def test_an_engine_without_the_kernel_says_so(tmp_path: Path) -> None:
    lower("bfloat16", tiny_bundle() / "latent_step.onnx", tmp_path / "latent_step.onnx", [])
    with pytest.raises(NoKernelError, match=r"latent_step\.onnx: the provider 'cpu' cannot compute it: .*Use a GPU"):
        load(tmp_path / "latent_step.onnx", step_graphs(bundle_model())[1].spec, 1)


def test_one_that_loses_too_much_is_not_shipped(bundle: Path, shards: Path) -> None:
    seen: list[str | None] = []

    def only_first(predicted: str | None, _: Iterable[str]) -> bool:
        seen.append(predicted)
        return len(seen) == 1

    report = export_precisions(bundle, shards, ExportSpec(precisions="int8", clips=1), split="test", correct=only_first)
    assert (report["float32"]["exact_match"], report["int8"]["exact_match"]) == (1.0, 0.0)
    assert not report["int8"]["shipped"]
    reason = "loses 100.0 points of exact match against float32 on 1 questions, more than the 1 of export.max_loss"
    assert report["int8"]["not_shipped"] == reason
    with pytest.raises(MirasolError, match=f"int8 was not shipped: {reason}"):
        read_contract(bundle / "int8")
    assert not (bundle / "int8").exists()
    assert not [path for path in bundle.iterdir() if path.is_dir()]


def test_equal_runs_report_the_same(bundle: Path, shards: Path) -> None:
    spec = ExportSpec(precisions="int8", clips=1)
    first, second = (export_precisions(bundle, shards, spec, split="test", correct=exact_match) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("names", ["fp8", "int8 int8", "int8,qdq"])
def test_a_name_that_is_wrong_is_refused(names: str) -> None:
    with pytest.raises(MirasolError, match=r"export\.precisions: .* is unknown or repeated"):
        precisions_of(ExportSpec(precisions=names))
