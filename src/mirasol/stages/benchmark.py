"""Stage `benchmark`: files streamed through the bundle, decoding included -> reports/latency.json."""

from __future__ import annotations

from mirasol.core.files import write_json
from mirasol.export.benchmark import benchmark
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import BUNDLE, DATA, FINETUNE, REPORTS
from mirasol.training.weights import load_model


def main(params: Params) -> None:
    """Time the stream, each exported step beside torch's."""
    report = benchmark(load_model(FINETUNE), BUNDLE, DATA, params.benchmark, split=params.evaluate.split)
    write_json(REPORTS / "latency.json", report)
    rounds, chunk = report["realtime_rounds"], report["chunk_ms"]
    print(
        f"[benchmark] {report['realtime']['median']:g} times real time ({rounds['low']:g} to {rounds['high']:g} over "
        f"{rounds['rounds']} rounds); a chunk takes {chunk['p50']:g} ms, 99 in 100 less than {chunk['p99']:g} ms",
        flush=True,
    )
