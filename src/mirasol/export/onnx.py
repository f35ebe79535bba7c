"""One step of the model to one ONNX file, checked against its signature."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import external_data_helper as helper
from onnxscript import ir

from mirasol.core.errors import MirasolError
from mirasol.export.onnx_passes import cast_at_the_edges, full_masks
from mirasol.export.signature import StepGraph
from mirasol.runtime.contract import TensorSpec

ATTENTION_OPSET = 23  # from here on attention is one operator; TensorRT-RTX reads opsets up to 21
EXTERNAL_BYTES = 1 << 30  # a protobuf holds 2 GiB; half of it leaves room for what the exporter folds
SMALL = 1024  # bytes: shapes and scalars, which engines read when they load a graph, stay in it
ALIGNED = 64  # bytes: weights are read where they lie, without a copy
_DTYPES: dict[int, str] = {
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.FLOAT: "float32",
}


def to_onnx(graph: StepGraph, opset: int) -> bytes:
    """The bytes of the ONNX file: equal weights give equal bytes.

    Args:
        graph: the step, its model in eval mode.
        opset: the version of the ONNX operators. Never left to the exporter, whose default moves.

    Raises:
        MirasolError: the exporter produced another opset, other names, types or dimensions than the
            signature states; it specialises or drops inputs without a word.
    """
    model = _program(graph, opset).model_proto
    _finish(model, opset)
    onnx.checker.check_model(model, full_check=True)
    _check_graph(model, graph, opset)
    return bytes(model.SerializeToString(deterministic=True))


class Weights:
    """A file of weights beside the graphs of all opsets: equal tensors lie there once, and none is copied in memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._places: dict[tuple[bytes, int], int] = {}  # SHA-256 and length of the bytes: where they begin

    def take(self, model: ir.Model) -> None:
        """Move what is large out of ``model``."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            # pixels become floats (cast_at_the_edges)
            if tensor is not None and tensor.nbytes >= SMALL and tensor.dtype != ir.DataType.UINT8:
                shape = ir.Shape(tensor.shape.numpy())
                offset = self._place(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
                value.const_value = ir.ExternalTensor(
                    self.file.name, offset, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name)
                )

    def _place(self, content: memoryview) -> int:
        key = (hashlib.sha256(content).digest(), len(content))
        if key not in self._places:
            with self.file.open("ab") as file:
                file.write(bytes(-file.tell() % ALIGNED))
                self._places[key] = file.tell()
                file.write(content)
        return self._places[key]


def write_onnx(graph: StepGraph, opset: int, file: Path, weights: Weights) -> None:
    """Write ``file``; weights that are too large for one protobuf go to ``weights`` in the same folder.

    Raises:
        MirasolError: as :func:`to_onnx`.
    """
    if sum(tensor.nbytes for tensor in graph.module.state_dict().values()) < EXTERNAL_BYTES:
        file.write_bytes(to_onnx(graph, opset))
        return
    program = _program(graph, opset)
    weights.take(program.model)
    model = program.model_proto
    _finish(model, opset)
    file.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(file), full_check=True)
    _check_graph(model, graph, opset)


def save_model(model: onnx.ModelProto, file: Path) -> None:
    """Write a graph whose weights are in memory; those too large for one protobuf go to ``file``.data."""
    if sum(tensor_bytes(tensor) for tensor in model.graph.initializer) >= EXTERNAL_BYTES:
        helper.convert_model_to_external_data(model, location=f"{file.name}.data", size_threshold=SMALL)
        helper.write_external_data_tensors(model, str(file.parent))
    file.write_bytes(model.SerializeToString(deterministic=True))


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """How much its values take, wherever they lie."""
    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _program(graph: StepGraph, opset: int) -> torch.onnx.ONNXProgram:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module,
            graph.example(),
            dynamo=True,
            opset_version=opset,
            external_data=False,
            input_names=[tensor.name for tensor in graph.spec.inputs],
            output_names=[tensor.name for tensor in graph.spec.outputs],
            verbose=False,
        )
    assert program is not None  # it is only without dynamo
    return program


def _finish(model: onnx.ModelProto, opset: int) -> None:
    if opset >= ATTENTION_OPSET:
        full_masks(model)
    cast_at_the_edges(model)
    _strip(model)


def _check_graph(model: onnx.ModelProto, graph: StepGraph, opset: int) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") != opset:
        raise MirasolError(f"{graph.name}: the exporter wrote opset {opsets.get('')}, expected {opset}")
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign or model.functions:
        raise MirasolError(f"{graph.name}: operators outside of ONNX ({foreign}): no other engine could run them")
    _check(graph.name, "inputs", model.graph.input, graph.spec.inputs)
    _check(graph.name, "outputs", model.graph.output, graph.spec.outputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of itself (deprecations, torchvision not installed): nobody could mend it."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _check(name: str, kind: str, found: Iterable[onnx.ValueInfoProto], expected: tuple[TensorSpec, ...]) -> None:
    have = []
    for value in found:
        tensor = value.type.tensor_type
        dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
        have.append((value.name, _DTYPES.get(tensor.elem_type, str(tensor.elem_type)), dims))
    want = [(tensor.name, tensor.dtype, tensor.shape) for tensor in expected]
    if have != want:
        raise MirasolError(f"{name}: exported {kind} {have}, the signature says {want}")


def _strip(model: onnx.ModelProto) -> None:
    """Take out notes of the exporter: stack traces with this machine's paths, which also differ run by run."""
    del model.metadata_props[:]
    model.doc_string = ""
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
