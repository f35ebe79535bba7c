"""TensorRT without onnxruntime. Not yet run on a GPU, see docs/streaming.md.

An engine file fits one GPU and one version, and loading a foreign file runs its code. So a bundle ships ONNX; engines
are built on first use and kept in the user's cache, by hash of the graph, GPU and version.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.runtime.backends import Array, Step
from mirasol.runtime.backends.cuda import Buffer, Cuda, Stream
from mirasol.runtime.contract import GraphSpec

PACKAGES = ("tensorrt", "tensorrt_rtx")


def load(file: Path, graph: GraphSpec, sha256: str) -> Step:
    """The engine of ``file``, built if the cache has none for this GPU and version.

    Args:
        sha256: hash of ``file`` in the contract.

    Raises:
        MirasolError: no TensorRT, no GPU, a graph that cannot be parsed or built, or other shapes.
    """
    trt, cuda = package(), device()
    cuda.here()
    plan = cached(cache_folder() / engine_name(file.stem, sha256, cuda.gpu, trt), lambda: build(trt, file))
    engine = trt.Runtime(_logger(trt)).deserialize_cuda_engine(plan)
    if engine is None:
        raise MirasolError(f"{file}: TensorRT cannot load the engine that it built: empty {cache_folder()}")
    for tensor in (*graph.inputs, *graph.outputs):
        shape = tuple(engine.get_tensor_shape(tensor.name))
        if shape != tensor.shape:
            raise MirasolError(f"{file}: {tensor.name} has shape {shape}, the contract says {tensor.shape}")
    return TrtStep(engine, graph, cuda)


def package() -> Any:
    """``tensorrt``, else ``tensorrt_rtx``; raises MirasolError if neither is installed."""
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise MirasolError("TensorRT is not installed: `pip install tensorrt`, or `pip install tensorrt_rtx`")


@functools.cache
def device() -> Cuda:
    """The GPU, opened once."""
    return Cuda()


def cache_folder() -> Path:
    """The user's own cache, since an engine is code."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mirasol" / "engines"


def engine_name(graph: str, sha256: str, gpu: str, trt: Any) -> str:
    """A file name unique to the graph, GPU, package and version."""
    key = hashlib.sha256("\n".join((sha256, gpu, trt.__name__, trt.__version__)).encode()).hexdigest()
    return f"{graph}-{key[:32]}.engine"


def cached(path: Path, make: Any) -> bytes:
    """The bytes of ``path``, written first if missing, by one process while others wait."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path.with_suffix(".lock")):
        if not path.is_file():
            plan = make()
            with atomic_write(path) as file:
                file.write(plan)
        return path.read_bytes()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def build(trt: Any, file: Path) -> bytes:
    """Parse ``file`` and build its engine, strongly typed; raises MirasolError if either fails."""
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise MirasolError(f"{file}: TensorRT cannot parse it: {errors}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # keeps 10 bits; parity needs 5e-6
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise MirasolError(f"{file}: {trt.__name__} {trt.__version__} built no engine; its log above says why")
    return bytes(plan)


def _logger(trt: Any) -> Any:
    return trt.Logger(trt.Logger.WARNING)


class TrtStep:
    """A loaded engine."""

    def __init__(self, engine: Any, graph: GraphSpec, cuda: Cuda) -> None:
        self._engine, self._graph, self._cuda = engine, graph, cuda

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        bound = self.bind()
        for name, value in inputs.items():
            bound.set(name, value)
        bound.run()
        outputs = {state.output: state.input for state in self._graph.states}
        bound.swap()
        return {tensor.name: bound.get(outputs.get(tensor.name, tensor.name)) for tensor in self._graph.outputs}

    def bind(self) -> TrtBound:
        self._cuda.here()
        return TrtBound(self._engine.create_execution_context(), self._graph, self._cuda)


class TrtBound:
    """Buffers on the GPU, and the step as two CUDA graphs, one for each order of the state buffers."""

    def __init__(self, context: Any, graph: GraphSpec, cuda: Cuda) -> None:
        self._context, self._cuda, self._stream = context, cuda, Stream(cuda)
        first = {state.input: state.initial for state in graph.states}
        self._buffers = {
            tensor.name: Buffer(self._stream, np.full(tensor.shape, first.get(tensor.name, 0), tensor.dtype))
            for tensor in (*graph.inputs, *graph.outputs)
        }
        self._pairs = [(state.input, state.output) for state in graph.states]
        self._graphs: list[Any] = [None, None]  # of this order, and of the other

    def set(self, name: str, value: Array) -> None:
        self._cuda.here()
        self._buffers[name].write(value)

    def run(self) -> None:
        self._cuda.here()
        if self._graphs[0] is not None:
            self._stream.launch(self._graphs[0])
        else:  # TensorRT needs a plain step before a recorded one; recording runs nothing
            for name, buffer in self._buffers.items():
                self._context.set_tensor_address(name, buffer.address.value)
            self._enqueue()
            self._stream.wait()
            self._graphs[0] = self._stream.record(self._enqueue)
        self._stream.wait()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle.value):
            raise MirasolError("TensorRT refused to run a step; its log above says why")

    def swap(self) -> None:
        self._graphs.reverse()
        for before, after in self._pairs:
            self._buffers[before], self._buffers[after] = self._buffers[after], self._buffers[before]

    def get(self, name: str) -> Array:
        self._cuda.here()
        return self._buffers[name].read()
