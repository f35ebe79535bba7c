"""Integer products that give the same numbers on every processor.

AVX2, and AVX-512 without VNNI, multiply unsigned by signed bytes with `vpmaddubsw`: it adds two neighbouring products
in 16 bits and clips the sum at +-32767. These tests compute that instruction in numpy, so they fail on any processor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.bundle import tiny_bundle

from mirasol.export.quantize import lower
from mirasol.runtime.backends import onnxruntime as backend
from mirasol.runtime.contract import AUDIO, GRAPHS, GraphSpec, TensorSpec
from mirasol.runtime.engine import Engine, relative

INNER, COLUMNS = 64, 4
INTEGER_PRODUCTS = ("Integer", "QLinearMatMul", "QGemm", "QLinearConv", "DynamicQuantizeMatMul")
SPEC = GraphSpec(
    "extreme.onnx",
    (TensorSpec("x", "float32", (1, INNER), "input"),),
    (TensorSpec("y", "float32", (1, COLUMNS), "output"),),
    (),
)


def saturating(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """uint8 [N, K] @ int8 [K, M] as `vpmaddubsw` computes it: each pair of products clipped to 16 bits."""
    products = activations.astype(np.int64)[:, :, None] * weights.astype(np.int64)[None]
    products = np.pad(products, ((0, 0), (0, products.shape[1] % 2), (0, 0)))
    return np.clip(products[:, ::2] + products[:, 1::2], -(2**15), 2**15 - 1).sum(1)


def overflows(weights: np.ndarray) -> bool:
    """Whether the largest activations overflow 16 bits with these int8 weights [K, M]."""
    exact = weights.astype(np.int64)
    for sign in (1, -1):
        activations = np.where(sign * exact > 0, 255, 0)  # one row for each column: the worst that it can meet
        for column in range(exact.shape[1]):
            row, one = activations[None, :, column], exact[:, column : column + 1]
            if not np.array_equal(saturating(row, one), row @ one):
                return True
    return False


def integer_weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """The weights of every MatMulInteger; fails where one multiplies two activations."""
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [weights[node.input[1]] for node in model.graph.node if node.op_type == "MatMulInteger"]


@pytest.fixture
def extreme(tmp_path: Path) -> Path:
    """One product whose weights and inputs are all at the end of their range."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], COLUMNS).astype(np.float32)
    weights = np.tile(signs, (INNER, 1))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "extreme",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, INNER])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, COLUMNS])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / SPEC.file)
    return tmp_path / SPEC.file


def lowered(precision: str, source: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The graph of ``source`` in ``precision``, and inputs at the end of their range."""
    feeds = {"x": np.ones((1, INNER), np.float32)}
    target = source.with_name(f"{precision}.onnx")
    lower(precision, source, target, [feeds, {"x": -feeds["x"]}])
    return target, feeds


def test_weights_of_8_bits_would_overflow() -> None:
    assert overflows(np.full((2, 1), 127, np.int8))
    assert overflows(np.full((2, 1), -128, np.int8))
    assert not overflows(np.full((2, 1), 64, np.int8))


def test_no_product_of_int8_can_overflow(extreme: Path) -> None:
    found = integer_weights(onnx.load(lowered("int8", extreme)[0]))
    assert found and np.abs(found[0].astype(int)).max() >= 63
    assert not any(map(overflows, found))


@pytest.mark.parametrize("graph", [name for name in GRAPHS if name != AUDIO])
def test_no_product_of_an_int8_bundle_can_overflow(graph: str, tmp_path: Path) -> None:
    source = tiny_bundle() / Engine(tiny_bundle()).contract.graphs[graph].file
    lower("int8", source, tmp_path / source.name, [])
    found = integer_weights(onnx.load(tmp_path / source.name))
    assert found
    assert not any(map(overflows, found))


@pytest.mark.parametrize("precision", ["int8", "qdq"])
def test_the_largest_products_are_those_of_float32(precision: str, extreme: Path) -> None:
    graph, feeds = lowered(precision, extreme)
    expected = backend.load(extreme, SPEC, 1)(feeds)["y"]
    assert relative(backend.load(graph, SPEC, 1)(feeds)["y"], expected) < 0.02


def test_qdq_on_a_cpu_has_no_integer_products(extreme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Saving(backend.onnxruntime.SessionOptions):  # type: ignore[misc,name-defined]  # onnxruntime ships no types
        def __init__(self) -> None:
            super().__init__()
            self.optimized_model_filepath = str(extreme.with_name("optimised.onnx"))

    graph, _ = lowered("qdq", extreme)
    monkeypatch.setattr(backend.onnxruntime, "SessionOptions", Saving)
    backend.load(graph, SPEC, 1)
    kinds = {node.op_type for node in onnx.load(extreme.with_name("optimised.onnx")).graph.node}
    assert "MatMul" in kinds
    assert not [kind for kind in kinds if any(product in kind for product in INTEGER_PRODUCTS)]
