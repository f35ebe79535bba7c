"""The benchmark measures the stream that it names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.bundle import bundle_model, tiny_bundle
from support.media import example, tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import write_manifest
from mirasol.export.benchmark import benchmark
from mirasol.export.config import BenchmarkSpec
from mirasol.runtime.contract import AUDIO, GRAPHS, read_contract


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(2):
        write_media(folder / "media" / f"{number}.mp4", frames=24, size=(16, 16), sound=tone(3.0))
        rows.append(example(number, prompt="which sound is it", split="test"))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def test_the_report(data: Path) -> None:
    threads = torch.get_num_threads()
    streamed, report = benchmark(bundle_model(), tiny_bundle(), data, BenchmarkSpec(rounds=3, threads=1), split="test")
    assert streamed["streamed"] == {"files": 2, "seconds": 6.0, "chunks": 12, "split": "test"}
    assert report["realtime_rounds"]["low"] <= report["realtime"]["median"] <= report["realtime_rounds"]["high"]
    assert (
        set(report["step_ms"]) == set(report["torch_over_ort"]) == set(GRAPHS) - {AUDIO}
    )  # the runtime's features are numpy
    for step in report["step_ms"].values():
        assert 0 < step["onnxruntime"]["p50"] <= step["onnxruntime"]["p99"]
    assert report["chunk_ms"]["p50"] > 0
    assert streamed["state_bytes"] > 0
    assert torch.get_num_threads() == threads


def test_apart_from_times_two_runs_report_the_same(data: Path) -> None:
    spec = BenchmarkSpec(rounds=2, threads=1)
    first, second = (benchmark(bundle_model(), tiny_bundle(), data, spec, split="test")[0] for _ in range(2))
    assert first == second
    assert first["bundle"] == read_contract(tiny_bundle()).sha256
    assert [answer["equal"] for answer in first["answers"]] == [True, True]


def test_each_lower_precision_of_the_bundle_is_timed(data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle(), tmp_path / "bundle")
    shutil.copytree(tiny_bundle(), tmp_path / "bundle" / "int8")
    _, times = benchmark(bundle_model(), tmp_path / "bundle", data, BenchmarkSpec(rounds=1, threads=1), split="test")
    assert times["precision_over_float32"].keys() == {"int8"}


def test_media_behind_a_url_are_streamed_too(data: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", [example(0, media=f"file://{data}/media/0.mp4", split="test")])
    streamed, _ = benchmark(bundle_model(), tiny_bundle(), tmp_path, BenchmarkSpec(rounds=1, threads=1), split="test")
    assert streamed["streamed"] == {"files": 1, "seconds": 3.0, "chunks": 6, "split": "test"}


def test_a_url_that_leads_nowhere_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", [example(0, media=f"file://{tmp_path}/no.mp4", split="test")])
    with pytest.raises(MirasolError, match=r"file://.*/no\.mp4"):
        benchmark(bundle_model(), tiny_bundle(), tmp_path, BenchmarkSpec(rounds=1, threads=1), split="test")


def test_a_model_that_cannot_stream_is_refused_before_the_bundle_is_opened(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="'bidirectional' sees the chunks to come and cannot stream"):
        benchmark(bundle_model(latent="bidirectional"), tmp_path, tmp_path, BenchmarkSpec(), split="test")


def test_a_split_without_clips(data: Path) -> None:
    with pytest.raises(MirasolError, match="no clip in the split val"):
        benchmark(bundle_model(), tiny_bundle(), data, BenchmarkSpec(), split="val")
