"""Graphs of lower precision from those in float32: the same names, shapes and types at their edges.

States, features and logits stay float32 outside of a graph, so that one contract, one session and one snapshot fit
every precision. ``audio_step`` stays float32: it spans eight orders of magnitude.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from mirasol.core.errors import MirasolError
from mirasol.export.config import ExportSpec

PRECISIONS = ("float16", "int8", "qdq")
# Sums of squares, exponents and means lose too much in half precision, and powers of sound leave its range.
FLOAT32_OPS = ["LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "Pow", "Sqrt", "Erf", "Gelu", "Sin", "Cos"]
PRODUCTS = ["MatMul", "Gemm"]

Feeds = list[dict[str, NDArray[np.generic]]]


def precisions_of(spec: ExportSpec) -> list[str]:
    """The names in ``export.precisions``.

    Raises:
        MirasolError: one is unknown or stands there twice.
    """
    names = spec.precisions.split()
    wrong = sorted({name for name in names if name not in PRECISIONS or names.count(name) > 1})
    if wrong:
        raise MirasolError(
            f"export.precisions: {', '.join(wrong)} is unknown or stands there twice, "
            f"expected names of {', '.join(PRECISIONS)} separated by spaces"
        )
    return names


def lower(precision: str, source: Path, target: Path, feeds: Feeds) -> None:
    """Write ``target``, the graph of ``source`` in ``precision``; ``feeds`` are inputs that calibrate ``qdq``."""
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / source.name
        _fold(source, folded)
        if precision == "float16":
            model = convert_float_to_float16(
                onnx.load(folded), keep_io_types=True, op_block_list=FLOAT32_OPS, disable_shape_infer=False
            )
            target.write_bytes(_finished(model))
            return
        log = logging.getLogger()
        level = log.level
        log.setLevel(logging.ERROR)  # it asks for a preparation that _fold is
        try:
            if precision == "int8":
                quantize_dynamic(
                    folded,
                    target,
                    op_types_to_quantize=PRODUCTS,
                    per_channel=True,
                    reduce_range=True,  # on processors without VNNI sums of 8 bits by 8 bits overflow
                    weight_type=QuantType.QInt8,
                )
            else:
                quantize_static(
                    folded,
                    target,
                    _Reader(feeds),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=PRODUCTS,
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    # all that TensorRT knows: scales without zero points, biases that are not quantised
                    extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
                )
        finally:
            log.setLevel(level)
        target.write_bytes(_finished(onnx.load(target)))


def _finished(model: onnx.ModelProto) -> bytes:
    """Without what onnxruntime notes in it; the operators that are used say which sets of them are imported."""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:], model.metadata_props[:], model.graph.value_info[:]
    model.opset_import.extend(kept)
    foreign = used - {""}
    if foreign:
        raise MirasolError(f"operators outside of ONNX ({', '.join(sorted(foreign))}): no other engine could run them")
    return bytes(model.SerializeToString(deterministic=True))


def _fold(source: Path, target: Path) -> None:
    """Compute what depends on weights alone, such as the tubes' weights for YUV: only constants are quantised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    model = onnx.load(target)
    _unshare(model.graph)
    onnx.save(model, target)


def _unshare(graph: onnx.GraphProto) -> None:
    """Give a product weights of its own where they are a table too: the quantiser would turn both round."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for node in graph.node:
        if node.op_type in PRODUCTS and node.input[1] in tables & set(weights):
            copy = onnx.TensorProto()
            copy.CopyFrom(weights[node.input[1]])
            copy.name = f"{node.output[0]}_weight"
            graph.initializer.append(copy)
            node.input[1] = copy.name


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Hands the calibration its inputs."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.generic]]] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._feeds, None)
