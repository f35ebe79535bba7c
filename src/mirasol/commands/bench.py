"""`mirasol bench`: a bundle timed outside the pipeline."""

from __future__ import annotations

from pathlib import Path

from mirasol.commands.say import table
from mirasol.export.benchmark import benchmark
from mirasol.params.load import load_params
from mirasol.stages.paths import DATA
from mirasol.training.weights import load_model


def measure(bundle: Path, weights: Path) -> None:
    """Print how fast ``bundle`` streams, and each of its steps beside torch's eager one."""
    params = load_params()
    report = benchmark(load_model(weights), bundle, DATA, params.benchmark, split=params.evaluate.split)
    rounds, chunk, answer = report["realtime_rounds"], report["chunk_ms"], report["answer_ms"]
    print(f"stream   {report['realtime']['median']:g} times real time ({rounds['low']:g} to {rounds['high']:g})")
    print(f"chunk    {chunk['p50']:g} ms, 99 in 100 less than {chunk['p99']:g} ms, decoding included")
    print(f"answer   {answer['p50']:g} ms, 99 in 100 less than {answer['p99']:g} ms")
    print(f"memory   {report['state_bytes']:,} bytes a stream, whatever its length\n")
    rows: list[tuple[str, ...]] = [("step", "onnxruntime ms", "torch ms", "torch / onnxruntime")]
    for name, step in report["step_ms"].items():
        ratio = report["torch_over_ort"][name]
        spread = f"{ratio['median']:g} ({ratio['low']:g} to {ratio['high']:g})"
        rows.append((name, f"{step['onnxruntime']['p50']:g}", f"{step['torch']['p50']:g}", spread))
    table(rows, right=(1, 2, 3))
