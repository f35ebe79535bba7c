"""The export of a large preset with random weights: disk, memory and time of its bundle.

    mirasol bench large [--preset base] [--layers N] [--folder DIR] [--json FILE] [--quick]

The whole of `export_bundle`: the graphs of both opsets, torch's golden outputs, and their replay through onnxruntime.
Memory is that of the process itself (`RssAnon`, sampled); the system can drop weights mapped from files at any time,
so they count as resident only. Needs Linux.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import threading
import time
from pathlib import Path

from common import arguments, exact, report, table

from mirasol.export.bundle import TrainedModel, export_bundle
from mirasol.export.config import ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.model.config import ModelConfig, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.paper import PaperInputs, paper_config
from mirasol.tokenizer import FORMAT, SPACE, SPECIAL
from mirasol.training.weights import load_model, save_weights

TOLERANCE = 1e-4  # of random weights, which are no model's
GIB = 2**30


class Peak:
    """The most memory that the process has held, in bytes."""

    def __init__(self) -> None:
        self.anonymous = self.resident = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.05)

    def look(self) -> None:
        """Read it now."""
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.anonymous = max(self.anonymous, int(lines["RssAnon"].split()[0]) << 10)
        self.resident = max(self.resident, int(lines["VmHWM"].split()[0]) << 10)


def sizes(preset: str, layers: int, chunks: int) -> ModelConfig:
    """The preset with the paper's inputs; at most ``layers`` layers of each part, where that is not 0."""
    config = paper_config(preset)
    parts = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    cut = {name: dataclasses.replace(s, layers=min(s.layers, layers)) for name, s in parts.items() if type(s) is Sizes}
    changes = cut | {"audio_layers": min(config.audio_layers, layers)} if layers else {}
    return dataclasses.replace(config, max_chunks=chunks, **changes)


def export(config: ModelConfig, folder: Path) -> tuple[dict[str, float], int]:
    """Seconds of the parts, and the bytes of the weights; the bundle lies in ``folder``."""
    inputs, begun = PaperInputs(), time.perf_counter()
    save_weights(folder, Mirasol(config))  # as the stage finds them behind a training
    model = load_model(folder)
    made = time.perf_counter()
    clip = ClipSpec(
        fps=8.0,
        chunks=config.max_chunks,
        frames_per_chunk=config.frames_per_chunk,
        size=inputs.size,
        mels=inputs.mels,
        audio_bands=inputs.columns_per_frame,
    )
    words = [f"{SPACE}w{number}" for number in range(config.vocabulary - len(SPECIAL))]
    pieces = [*((piece, 0.0) for piece in SPECIAL), *((word, -3.0) for word in words)]
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(json.dumps({"format": FORMAT, "max_text": config.max_text, "pieces": pieces}))
    spec = ExportSpec(tolerance=TOLERANCE)
    export_bundle(TrainedModel(model, clip, tokenizer, 8), folder / "bundle", spec, project=folder)
    times = {"model": made - begun, "export": time.perf_counter() - made}
    return times, sum(p.nbytes for p in model.parameters())


def main() -> None:
    """Export, print, write."""
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--preset", default="small", choices=("small", "base"))
    parser.add_argument("--layers", type=int, default=0, help="at most so many layers of each part; 0 for all")
    parser.add_argument("--chunks", type=int, default=16, help="chunks that a stream remembers")
    parser.add_argument("--folder", type=Path, help="where the bundle is made for a while (the system's by default)")
    options = parser.parse_args()
    config = sizes(options.preset, 2 if options.quick else options.layers, 2 if options.quick else options.chunks)
    if options.quick:
        config = dataclasses.replace(config, vocabulary=1000)
    peak = Peak()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        seconds, weights = export(config, Path(folder))
        disk = sum(file.stat().st_size for file in Path(folder, "bundle").iterdir())
    peak.look()
    figures = {
        "preset": options.preset,
        "weights_gib": weights / GIB,
        "bundle_gib": disk / GIB,
        "anonymous_gib": peak.anonymous / GIB,
        "resident_gib": peak.resident / GIB,
        "cpu_seconds": time.process_time(),
        **{f"{part}_seconds": taken for part, taken in seconds.items()},
    }
    table([("", ""), *figures.items()])
    ratios = {"large_disk": exact(disk / weights), "large_memory": exact(peak.anonymous / weights)}
    report("large", options.json, ratios, figures)


if __name__ == "__main__":
    main()
