"""Export one step of the model to an ONNX file and check it against its specification."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import external_data_helper as helper
from onnxscript import ir

from mirasol.core.errors import MirasolError
from mirasol.export.io_spec import StepGraph
from mirasol.export.onnx_passes import cast_at_the_edges, full_masks

ATTENTION_OPSET = 23  # from here on attention is one operator; TensorRT-RTX reads opsets up to 21
EXTERNAL_BYTES = 1 << 30  # a protobuf holds 2 GiB; half of it leaves space for folded constants
SMALL = 1024  # bytes: shapes and scalars, which engines read at load time, stay in the graph
ALIGNED = 64  # bytes: engines read mapped weights without a copy
_DTYPES: dict[int, str] = {
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.FLOAT: "float32",
}


def to_onnx(graph: StepGraph, opset: int) -> bytes:
    """The bytes of the ONNX file; equal weights give equal bytes.

    Args:
        graph: the step, its model in eval mode.
        opset: the version of the ONNX operators; the exporter's default changes between versions.

    Raises:
        MirasolError: opset, names, types or dimensions differ from ``graph.spec``; the exporter specialises or drops
            inputs silently.
    """
    model = _program(graph, opset).model_proto
    _finish(model, opset)
    onnx.checker.check_model(model, full_check=True)
    _check_graph(model, graph, opset)
    return bytes(model.SerializeToString(deterministic=True))


class Weights:
    """A file of weights for the graphs of all opsets: stores equal tensors once and copies none in memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._places: dict[tuple[bytes, int], int] = {}  # SHA-256 and length of the bytes: where they begin

    def take(self, model: ir.Model) -> None:
        """Move the large tensors out of ``model``."""
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
    """Write ``file``; weights too large for one protobuf go to ``weights``. Raises like :func:`to_onnx`."""
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
    """Write a graph with its weights in memory; weights too large for one protobuf go to ``file``.data."""
    if sum(tensor_bytes(tensor) for tensor in model.graph.initializer) >= EXTERNAL_BYTES:
        helper.convert_model_to_external_data(model, location=f"{file.name}.data", size_threshold=SMALL)
        helper.write_external_data_tensors(model, str(file.parent))
    file.write_bytes(model.SerializeToString(deterministic=True))


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's values, inside or outside the file."""
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
    assert program is not None  # always so with dynamo
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
    for kind, found, expected in (
        ("inputs", model.graph.input, graph.spec.inputs),
        ("outputs", model.graph.output, graph.spec.outputs),
    ):
        have = [_described(value) for value in found]
        want = [(tensor.name, tensor.dtype, tensor.shape) for tensor in expected]
        if have != want:
            raise MirasolError(f"{graph.name}: exported {kind} {have}, expected {want}")


def _described(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return value.name, _DTYPES.get(tensor.elem_type, str(tensor.elem_type)), dims


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's own notices (deprecations, torchvision missing): a user cannot act on them."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces with local paths, which also differ between runs."""
    del model.metadata_props[:]
    model.doc_string = ""
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
