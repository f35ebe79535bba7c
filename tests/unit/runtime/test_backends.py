"""Backends: swapped buffers equal plain calls, and a missing backend is a clear error."""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.bundle import tiny_bundle

from mirasol.core.errors import MirasolError
from mirasol.runtime.backends import cuda, tensorrt
from mirasol.runtime.backends import onnxruntime as ort
from mirasol.runtime.contract import GRAPHS, GraphSpec, TensorSpec
from mirasol.runtime.engine import Engine


def random_input(random: np.random.Generator, tensor: TensorSpec) -> np.ndarray:
    if tensor.dtype == "float32":
        return random.normal(size=tensor.shape).astype(np.float32)
    return random.integers(0, 200 if tensor.dtype == "uint8" else 2, tensor.shape).astype(tensor.dtype)


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_swapped_buffers_give_what_plain_calls_give(graph: str, combiner: str) -> None:
    engine, random = Engine(tiny_bundle(combiner), threads=1), np.random.default_rng(0)
    spec, bound, states = engine.contract.graphs[graph], engine.bind(graph), engine.initial(graph)
    for _ in range(7):
        inputs = {t.name: random_input(random, t) for t in spec.inputs if t.name not in states}
        if "count" in inputs:  # the samples that a chunk has
            inputs["count"][:] = inputs["samples"].shape[1]
        expected = engine.step(graph)({**inputs, **states})
        for name, value in inputs.items():
            bound.set(name, value)
        bound.run()
        assert np.array_equal(bound.get(spec.outputs[0].name), expected[spec.outputs[0].name])
        bound.swap()
        states = {state.input: expected[state.output] for state in spec.states}
        for name, value in states.items():
            assert np.array_equal(bound.get(name), value)


def test_a_step_that_was_not_kept_changes_no_state() -> None:
    engine = Engine(tiny_bundle(), threads=1)
    bound = engine.bind("latent_step")
    state = engine.contract.graphs["latent_step"].states[0].input
    bound.set("x", np.ones(engine.contract.graphs["latent_step"].input("x").shape, np.float32))
    before = bound.get(state)
    bound.run()
    assert np.array_equal(bound.get(state), before)
    bound.swap()
    assert not np.array_equal(bound.get(state), before)


def test_what_was_read_is_not_overwritten_by_the_next_step() -> None:
    engine = Engine(tiny_bundle(), threads=1)
    bound, x = engine.bind("latent_step"), engine.contract.graphs["latent_step"].input("x")
    bound.set("x", np.ones(x.shape, np.float32))
    bound.run()
    first = bound.get("h")
    kept = first.copy()
    bound.set("x", np.full(x.shape, -3.0, np.float32))
    bound.run()
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, bound.get("h"))


def test_lent_buffers_are_used_again_and_remember_nothing() -> None:
    engine = Engine(tiny_bundle(), threads=1)
    with engine.lent("text_step") as one, engine.lent("text_step") as other:
        assert one is not other
        one.run()
        one.swap()
    with engine.lent("text_step") as again:
        assert again is one or again is other
    with engine.lent("text_step"), engine.lent("text_step") as used:
        for name, first in engine.initial("text_step").items():
            assert np.array_equal(used.get(name), first)


def test_auto_takes_what_is_there() -> None:
    engine = Engine(tiny_bundle(), threads=1, provider="auto")
    assert engine.provider in ("cpu", "cuda")
    assert Engine(tiny_bundle(), threads=1, provider="cpu").provider == "cpu"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_falls_back_to_the_cpu_where_cuda_finds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "available", lambda: ["cpu", "cuda"])  # onnxruntime-gpu on a machine without a GPU
    assert Engine(tiny_bundle(), threads=1).provider == "cpu"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_built_in_is_named(provider: str) -> None:
    if provider in ort.available():
        pytest.skip(f"this onnxruntime has {provider}")
    with pytest.raises(MirasolError, match=rf"'{provider}' is not in this onnxruntime .*'mirasol-av\[runtime-gpu\]'"):
        Engine(tiny_bundle(), provider=provider)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_without_its_gpu_is_refused_and_not_replaced(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if provider in ort.available():
        pytest.skip("there may be a GPU")
    monkeypatch.setattr(ort, "available", lambda: list(ort.PROVIDERS))
    with pytest.raises(MirasolError, match=f"'{provider}' cannot be used here: no NVIDIA GPU"):
        Engine(tiny_bundle(), provider=provider)


def test_a_provider_that_does_not_exist() -> None:
    with pytest.raises(MirasolError, match=r"'coreml' does not exist: one of auto, cpu, cuda, tensorrt, tensorrt-nat"):
        Engine(tiny_bundle(), provider="coreml")


def test_tensorrt_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tensorrt.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MirasolError, match="TensorRT is not installed: `pip install tensorrt`"):
        Engine(tiny_bundle(), provider="tensorrt-native")


def test_tensorrt_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libno-such-driver.so.1")
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__name__="tensorrt", __version__="10"))
    tensorrt.device.cache_clear()
    with pytest.raises(MirasolError, match=r"no NVIDIA driver \(libno-such-driver.so.1 is not found\)"):
        tensorrt.load(Path("x.onnx"), GraphSpec("x.onnx", (), (), ()), "0" * 64)


def test_an_engine_is_of_one_graph_gpu_package_and_version() -> None:
    ten, eleven = (SimpleNamespace(__name__="tensorrt", __version__=version) for version in ("10.1", "11.0"))
    rtx = SimpleNamespace(__name__="tensorrt_rtx", __version__="10.1")
    names = [
        tensorrt.engine_name("latent_step", sha256, gpu, trt)
        for sha256 in ("a" * 64, "b" * 64)
        for gpu in ("NVIDIA H200 sm90", "NVIDIA L4 sm89")
        for trt in (ten, eleven, rtx)
    ]
    assert len(set(names)) == len(names)
    assert names[0] == tensorrt.engine_name("latent_step", "a" * 64, "NVIDIA H200 sm90", ten)


def test_engines_are_kept_in_the_user_s_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tensorrt.cached(tensorrt.cache_folder() / "a.engine", lambda: b"plan")
    assert (tmp_path / "mirasol" / "engines" / "a.engine").read_bytes() == b"plan"
    assert tensorrt.cache_folder().stat().st_mode & 0o077 == 0


def test_an_engine_that_could_not_be_built_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> bytes:
        raise MirasolError("no engine")

    with pytest.raises(MirasolError):
        tensorrt.cached(tmp_path / "a.engine", fails)
    assert not (tmp_path / "a.engine").exists()
    assert tensorrt.cached(tmp_path / "a.engine", lambda: b"plan") == b"plan"


def build_once(folder: str) -> None:
    def make() -> bytes:
        with Path(folder, "built").open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return b"plan"

    assert tensorrt.cached(Path(folder, "a.engine"), make) == b"plan"


def test_two_processes_build_an_engine_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_once, args=(str(tmp_path),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "built").read_text() == "x"
