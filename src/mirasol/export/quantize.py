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
from onnxruntime.transformers.onnx_model import OnnxModel

from mirasol.core.errors import MirasolError
from mirasol.export.config import ExportSpec
from mirasol.export.onnx import save_model

PRECISIONS = ("float16", "bfloat16", "int8", "qdq")
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
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        folded, lowered = Path(folder) / source.name, Path(folder) / "lowered.onnx"
        _fold(source, folded)
        if precision == "float16":
            model = convert_float_to_float16(str(folded), keep_io_types=True, op_block_list=FLOAT32_OPS)
            OnnxModel.graph_topological_sort(model.graph)  # its casts stand at the end
        elif precision == "bfloat16":
            model = onnx.load(folded)
            products_in_bfloat16(model.graph)
        else:
            _quantise(precision, folded, lowered, feeds)
            model = onnx.load(lowered)
        save_model(_finished(model), target)
    onnx.checker.check_model(str(target), full_check=True)


def products_in_bfloat16(graph: onnx.GraphProto) -> None:
    """Products of weights, and those of attention, in bfloat16 by explicit casts; all else stays float32."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    nodes, halved = [], set()
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            half = f"{name}_bfloat16"
            if name and half not in halved:
                halved.add(half)
                if name in weights:
                    values = onnx.numpy_helper.to_array(weights[name]).astype(bfloat16)
                    graph.initializer.append(onnx.numpy_helper.from_array(values, half))
                else:
                    nodes.append(_cast(name, half, onnx.TensorProto.BFLOAT16))
            node.input[i] = half if name else name
        output = node.output[0]
        node.output[0] = f"{output}_product"
        nodes += [node, _cast(node.output[0], output, onnx.TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)


def _quantise(precision: str, source: Path, target: Path, feeds: Feeds) -> None:
    """Write ``target``, as onnxruntime's quantiser leaves it."""
    common = {
        "op_types_to_quantize": PRODUCTS,
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "use_external_data_format": has_weights_outside(source),
    }
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it asks for a preparation that _fold is
    try:
        if precision == "int8":
            # on processors without VNNI sums of 8 bits by 8 bits overflow
            quantize_dynamic(source, target, reduce_range=True, **common)
        else:
            quantize_static(
                source,
                target,
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                # all that TensorRT knows: scales without zero points, biases that are not quantised
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
                **common,
            )
    finally:
        log.setLevel(level)


def _finished(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what onnxruntime notes in it; the operators that are used say which sets of them are imported."""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:], model.metadata_props[:], model.graph.value_info[:]
    model.opset_import.extend(kept)
    foreign = used - {""}
    if foreign:
        raise MirasolError(f"operators outside of ONNX ({', '.join(sorted(foreign))}): no other engine could run them")
    return model


def has_weights_outside(graph: Path) -> bool:
    """Whether weights of a graph lie in a file of their own."""
    model = onnx.load(graph, load_external_data=False)
    return any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)


def _fold(source: Path, target: Path) -> None:
    """Compute what depends on weights alone, such as the tubes' weights for YUV: only constants are quantised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    outside = target.with_suffix(".folded")
    if has_weights_outside(source):
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", outside.name)
        options.add_session_config_entry("session.disable_prepacking", "1")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    model = onnx.load(target)
    outside.unlink(missing_ok=True)
    _unshare(model.graph)
    save_model(model, target)


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
