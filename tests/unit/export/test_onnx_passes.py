"""Rewritten graphs compute equal outputs, and every engine accepts them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mirasol.export.onnx_passes import cast_at_the_edges, full_masks


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def test_uint8_is_a_type_of_the_edges_only() -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Concat", ["a", "grey"], ["both"], axis=0),
            helper.make_node("Cast", ["both"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["both"], ["b"]),
        ],
        "g",
        [info("a", TensorProto.UINT8, [2])],
        [info("x", TensorProto.FLOAT, [3]), info("b", TensorProto.UINT8, [3])],
        [helper.make_tensor("grey", TensorProto.UINT8, [1], [128])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    cast_at_the_edges(model)
    x, b = run(model, a=np.array([0, 255], np.uint8))
    assert x.tolist() == [0, 255, 128]
    assert (b.tolist(), b.dtype) == ([0, 255, 128], np.uint8)
    uint8 = {"a", "b"}
    for node in model.graph.node:
        touched = uint8 & {*node.input, *node.output}
        assert not touched or node.op_type == "Cast"


def attention(rows: int) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    shape = [1, 2, 3, 4]
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v", "mask"], ["y"])],
        "g",
        [*(info(name, TensorProto.FLOAT, shape) for name in "qkv"), info("mask", TensorProto.BOOL, [1, 1, rows, 3])],
        [info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def test_a_mask_of_one_row_becomes_one_of_all() -> None:
    random = np.random.default_rng(0)
    q, k, v = (random.normal(size=(1, 2, 3, 4)).astype(np.float32) for _ in "qkv")
    row = np.array([True, False, True])
    short, full = attention(1), attention(3)
    full_masks(short)
    (found,) = run(short, q=q, k=k, v=v, mask=row[None, None, None])
    (expected,) = run(full, q=q, k=k, v=v, mask=np.tile(row, (1, 1, 3, 1)))
    assert np.array_equal(found, expected)


def test_onnxruntime_still_refuses_a_mask_of_one_row() -> None:
    """Where this fails, ``full_masks`` is no longer needed."""
    x = np.zeros((1, 2, 3, 4), np.float32)
    with pytest.raises(Exception, match="q_sequence_length"):
        run(attention(1), q=x, k=x, v=x, mask=np.ones((1, 1, 1, 3), np.bool_))
