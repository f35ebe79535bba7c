"""Lower precision: the same edges, fewer bytes, and only what answers as well."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.bundle import CLIP, tiny_bundle
from support.media import example, tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import write_manifest
from mirasol.data.shards import build_shards
from mirasol.data.spec import ShardsSpec
from mirasol.export.config import ExportSpec
from mirasol.export.precision import precisions_of
from mirasol.export.precision_gate import export_precisions
from mirasol.runtime.engine import Engine


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


def test_one_that_loses_too_much_is_not_shipped(bundle: Path, shards: Path) -> None:
    seen: list[str | None] = []

    def only_first(predicted: str | None, _: Iterable[str]) -> bool:
        seen.append(predicted)
        return len(seen) == 1

    report = export_precisions(bundle, shards, ExportSpec(precisions="int8", clips=1), split="test", correct=only_first)
    assert (report["float32"]["exact_match"], report["int8"]["exact_match"]) == (1.0, 0.0)
    assert not report["int8"]["shipped"]
    assert not (bundle / "int8").exists()
    assert not [path for path in bundle.iterdir() if path.is_dir()]
    assert np.isfinite(report["int8"]["step_ratio"])


@pytest.mark.parametrize("names", ["fp8", "int8 int8", "int8,qdq"])
def test_a_name_that_is_wrong_is_refused(names: str) -> None:
    with pytest.raises(MirasolError, match=r"export\.precisions: .* is unknown or stands there twice"):
        precisions_of(ExportSpec(precisions=names))
