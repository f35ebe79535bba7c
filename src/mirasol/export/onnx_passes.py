"""What an exported graph needs so that every engine takes it. The numbers stay the same to the bit."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper


def cast_at_the_edges(model: onnx.ModelProto) -> None:
    """Make uint8 a type of inputs and outputs only: TensorRT reads and writes it, and computes nothing with it.

    Pixels are whole numbers below 256, which float32 holds exactly.
    """
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.UINT8:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.UINT8:
                attribute.i = TensorProto.FLOAT
    before, after = [], []
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            _rename(graph, value.name, f"{value.name}_float")
            before.append(_cast(value.name, f"{value.name}_float", TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            _rename(graph, value.name, f"{value.name}_float")
            after.append(_cast(f"{value.name}_float", value.name, TensorProto.UINT8))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def full_masks(model: onnx.ModelProto) -> None:
    """Give the mask of every Attention node one row per query.

    ONNX lets a mask of one row stand for all queries; onnxruntime 1.31 refuses it when it runs ("inconsistent
    q_sequence_length (between attn_mask and Q)"). It wants the shapes that the exporter noted.
    """
    graph = model.graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Attention" and len(node.input) > 3 and node.input[3]:
            mask, rows = shapes[node.input[3]], shapes[node.input[0]][-2]
            if mask[-2] != rows:
                size, full = f"{node.output[0]}_mask_shape", f"{node.output[0]}_mask"
                dims = helper.make_tensor(size, TensorProto.INT64, [len(mask)], [*mask[:-2], rows, mask[-1]])
                graph.initializer.append(dims)
                nodes.append(helper.make_node("Expand", [node.input[3], size], [full], name=full))
                node.input[3] = full
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Another name for a tensor inside of the graph."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
