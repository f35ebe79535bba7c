"""Graphs on onnxruntime's CPU provider."""

from __future__ import annotations

from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.runtime.backends import Array, Step
from mirasol.runtime.contract import GraphSpec

try:
    import onnxruntime
except ImportError:  # an extra: `mirasol --help` must work without it
    onnxruntime = None

_TYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


def load(file: Path, graph: GraphSpec, threads: int) -> Step:
    """Load ``file`` and check that its inputs and outputs are those of ``graph``.

    Args:
        threads: CPU threads of one call; 0 leaves the choice to onnxruntime.

    Raises:
        MirasolError: onnxruntime is not installed, cannot read the file, or finds another signature.
    """
    if onnxruntime is None:
        raise MirasolError("onnxruntime is not installed: run `pip install 'mirasol[runtime]'`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Between two chunks of a live stream there is nothing to do: threads that spin would burn a core each.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise MirasolError(f"{file}: onnxruntime cannot load it: {error}. Export the bundle again") from error
    for kind, found, expected in (
        ("input", session.get_inputs(), graph.inputs),
        ("output", session.get_outputs(), graph.outputs),
    ):
        have = [(node.name, _TYPES.get(node.type, node.type), tuple(node.shape)) for node in found]
        want = [(tensor.name, tensor.dtype, tensor.shape) for tensor in expected]
        if have != want:
            first = next((pair for pair in zip(have, want, strict=False) if pair[0] != pair[1]), (have, want))
            raise MirasolError(f"{file}: {kind} {first[0]} is not the contract's {first[1]}. Export the bundle again")
    names = [tensor.name for tensor in graph.outputs]

    def step(inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return step
