"""Settings of the export, torch-free for ``params check``."""

from __future__ import annotations

from dataclasses import dataclass

from mirasol.core.fields import param


@dataclass(frozen=True)
class ExportSpec:
    """The `export` section."""

    opset: int = param(18, "ONNX opset; TensorRT reads 18 to 20. Opset 23 is always written too", ge=18, le=20)
    tolerance: float = param(1e-5, "largest relative difference to torch over a chained clip", gt=0)
    clips: int = param(32, "clips of the scored split on which the exported graphs are compared with torch", ge=1)
    precisions: str = param(
        "int8",
        "bundles made in addition to float32, separated by spaces: `float16`, `bfloat16` (needs a GPU to be measured), "
        "`int8` (dynamic, CPU), `qdq` (static int8, GPU)",
    )
    max_loss: float = param(
        0.01, "exact match that a precision may lose against float32; one that loses more is not kept", ge=0, le=1
    )


@dataclass(frozen=True)
class BenchmarkSpec:
    """The `benchmark` section."""

    rounds: int = param(5, "rounds of each measurement", ge=3)
    clips: int = param(8, "clips of the split that are streamed per round", ge=1)
    threads: int = param(2, "CPU threads of onnxruntime", ge=1, le=1024)
