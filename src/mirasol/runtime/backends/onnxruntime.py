"""onnxruntime: on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mirasol.core.errors import MirasolError, install
from mirasol.runtime.backends import Array, NoKernelError, Step
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
# Each provider with its fallbacks for unsupported operators.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


def available() -> list[str]:
    """Names of :data:`PROVIDERS` in the installed onnxruntime; a GPU may still be missing.

    Raises:
        MirasolError: onnxruntime is not installed.
    """
    if onnxruntime is None:
        raise MirasolError(f"onnxruntime is not installed: run {install('runtime')}")
    built = onnxruntime.get_available_providers()
    return [name for name, wanted in PROVIDERS.items() if wanted[0] in built]


def load(file: Path, graph: GraphSpec, threads: int, provider: str = "cpu") -> Step:
    """Load ``file`` and compare its inputs and outputs with ``graph``.

    Args:
        threads: CPU threads of one call; 0 leaves the choice to onnxruntime.
        provider: a name of :data:`PROVIDERS`.

    Raises:
        MirasolError: onnxruntime is missing, lacks the provider or its GPU, or cannot read the file; inputs or
            outputs differ.
    """
    have = available()
    if provider not in have:
        raise MirasolError(
            f"the provider {provider!r} is not in this onnxruntime (it has: {', '.join(have)}). For a GPU: "
            f"`pip uninstall onnxruntime`, then {install('runtime-gpu')}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Between two chunks of a live stream spinning threads would keep a core busy each.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == "cpu":  # products of 8 bits by 8 bits saturate without VNNI: see docs/decisions/0059
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if any(file.parent.glob(f"{file.name.partition('.')[0]}.*data")):  # a large model, see docs/decisions/0057
        options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay where they are mapped
        options.enable_mem_pattern = False  # keeps activations in memory once, not twice
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=list(PROVIDERS[provider]))
    except Exception as error:  # onnxruntime's errors have no common base
        if type(error).__name__ == "NotImplemented":
            raise NoKernelError(file, provider, str(error)) from error
        raise MirasolError(f"{file}: onnxruntime cannot load it: {error}. Export the bundle again") from error
    if PROVIDERS[provider][0] not in session.get_providers():  # onnxruntime only logs this and uses the CPU
        raise MirasolError(
            f"the provider {provider!r} cannot be used here: no NVIDIA GPU, or its libraries (CUDA, cuDNN, TensorRT) "
            "are not found. Run `nvidia-smi`; provider='cpu' needs neither"
        )
    for kind, found, expected in (
        ("input", session.get_inputs(), graph.inputs),
        ("output", session.get_outputs(), graph.outputs),
    ):
        seen = [(node.name, _TYPES.get(node.type, node.type), tuple(node.shape)) for node in found]
        want = [(tensor.name, tensor.dtype, tensor.shape) for tensor in expected]
        if seen != want:
            first = next((pair for pair in zip(seen, want, strict=False) if pair[0] != pair[1]), (seen, want))
            raise MirasolError(f"{file}: {kind} {first[0]} is not the contract's {first[1]}. Export the bundle again")
    return OrtStep(session, graph, "cpu" if provider == "cpu" else "cuda")


class OrtStep:
    """A graph in an onnxruntime session."""

    def __init__(self, session: Any, graph: GraphSpec, device: str) -> None:
        self._session, self._graph, self._device = session, graph, device
        self._names = [tensor.name for tensor in graph.outputs]

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))

    def bind(self) -> OrtBound:
        return OrtBound(self._session, self._graph, self._device)


class OrtBound:
    """Buffers on the computing device, bound twice: as they are, and with each state's two buffers exchanged."""

    def __init__(self, session: Any, graph: GraphSpec, device: str) -> None:
        self._session = session
        first = {state.input: state.initial for state in graph.states}
        values = {
            tensor.name: onnxruntime.OrtValue.ortvalue_from_numpy(
                np.full(tensor.shape, first.get(tensor.name, 0), tensor.dtype), device, 0
            )
            for tensor in (*graph.inputs, *graph.outputs)
        }
        pairs = {state.input: state.output for state in graph.states}
        exchanged = pairs | {after: before for before, after in pairs.items()}
        swapped = {name: values[exchanged.get(name, name)] for name in values}
        self._turns = [(values, self._binding(graph, values)), (swapped, self._binding(graph, swapped))]

    def _binding(self, graph: GraphSpec, values: dict[str, Any]) -> Any:
        binding = self._session.io_binding()
        for tensor in graph.inputs:
            binding.bind_ortvalue_input(tensor.name, values[tensor.name])
        for tensor in graph.outputs:
            binding.bind_ortvalue_output(tensor.name, values[tensor.name])
        return binding

    def set(self, name: str, value: Array) -> None:
        self._turns[0][0][name].update_inplace(np.ascontiguousarray(value))

    def run(self) -> None:
        self._session.run_with_iobinding(self._turns[0][1])

    def swap(self) -> None:
        self._turns.reverse()

    def get(self, name: str) -> Array:
        return np.array(self._turns[0][0][name].numpy())  # on a CPU, numpy() is a view of the buffer
