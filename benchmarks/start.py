"""What a process of a training needs before its first step on a set of many clips: seconds and memory.

    mirasol bench start [--clips 100000] [--shards build/shards] [--json FILE]

It writes a set of that many clips without media, then opens it as a phase of training does: in a first process, and in
a second one of the same machine. The JSON is that of the built-in world's clips, repeated, with a new key and caption
for each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, ratio, report

from mirasol.core.files import write_json
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import GlobalOrder, make_loader
from mirasol.data.loading.samples import SampleSettings
from mirasol.data.shards.format import FORMAT, INDEX, INDEX_SUFFIX, ShardWriter
from mirasol.tokenizer import Tokenizer

SHARD = 1000  # clips of a tar


def copies(shards: Path, clips: int, folder: Path) -> None:
    """Write a set of ``clips`` clips without media, after those of the train split of ``shards``, into ``folder``."""
    folder.mkdir(parents=True)
    source = ShardDataset(shards, "train", any_size=True)
    known = [source.meta(number) for number in range(min(len(source), SHARD))]
    index = json.loads((shards / INDEX).read_text())
    tars = []
    for low in range(0, clips, SHARD):
        samples, hashes, path = [], [], folder / f"train-{low // SHARD:05d}.tar"
        with path.open("wb") as file:
            tar = ShardWriter(file)
            for number in range(low, min(low + SHARD, clips)):
                meta = dict(known[number % len(known)], key=f"{number:016x}")
                first = {**meta["examples"][0], "id": f"own-{number}", "answers": [f"clip number {number} of all"]}
                meta["examples"] = [first, *({**row, "id": f"{row['id']}-{number}"} for row in meta["examples"][1:])]
                data = (json.dumps(meta, sort_keys=True) + "\n").encode()
                samples.append([meta["key"], tar.add(meta["key"], {"json": data})])
                hashes.append(hashlib.sha256(data).hexdigest())
            tar.close()
        write_json(folder / f"{path.name}{INDEX_SUFFIX}", {"format": FORMAT, "samples": samples, "json_sha256": hashes})
        tars.append({"name": path.name, "split": "train", "clips": len(samples), "bytes": path.stat().st_size})
    write_json(folder / INDEX, index | {"splits": {"train": tars, "val": [], "test": []}, "rejected": []})


def start(shards: Path, words: Path, cache: Path, answers: Any) -> None:
    """Do what a process of a training does before it reads its first clip; put its figures into ``answers``."""
    tokenizer = Tokenizer.load(words)
    tokenizer.max_text = 64
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    split = ShardDataset(shards, "train", cache=cache, cache_bytes=0, any_size=True)
    settings = SampleSettings(("caption", "audio_class", "qa"), 1, 4, 1.0)
    loader = make_loader(split, tokenizer, settings, GlobalOrder(8))
    chosen = [loader.samples.key(sample) for sample in itertools.chain(*itertools.islice(iter(loader.order), 4))]
    seconds = time.perf_counter() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    private = sum(
        int(line.split()[1]) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
        if line.startswith("Private_Dirty")
    ) / 1024  # fmt: skip
    answers.put({
        "seconds": round(seconds, 3), "peak_mib": round(grown, 1), "own_mib": round(private, 1),
        "clips": len(split), "order": hashlib.sha256(repr(chosen).encode()).hexdigest()[:12],
    })  # fmt: skip


def main() -> None:
    """Measure, print, and write the figures where ``--json`` says."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--shards", type=Path, default=Path("build/shards"))
    parser.add_argument("--tokenizer", type=Path, default=Path("build/tokenizer/tokenizer.json"))
    options = parser.parse_args()
    clips = 500 if options.quick else options.clips
    found: dict[str, list[dict[str, Any]]] = {"first": [], "second": []}
    with tempfile.TemporaryDirectory() as scratch:
        copies(options.shards, clips, Path(scratch, "shards"))
        context = multiprocessing.get_context("spawn")
        for number in range(options.rounds):
            cache = Path(scratch, f"cache-{number}")
            for name, figures in found.items():
                answers = context.Queue()
                process = context.Process(
                    target=start, args=(Path(scratch, "shards"), options.tokenizer, cache, answers)
                )
                process.start()
                figures.append(answers.get())
                process.join()
                print(name, json.dumps(figures[-1]), flush=True)
    seconds = [[one["seconds"] for one in figures] for figures in found.values()]
    report("start", options.json, {"first_over_other": ratio(*seconds)}, {"clips": clips, **found})


if __name__ == "__main__":
    main()
