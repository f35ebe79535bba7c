"""Costs of one clip, one process and one checkpoint at `base`'s sizes: what docs/scale.md multiplies.

    mirasol bench scale [--json FILE] [--rounds 5] [--quick]

With MIRASOL_SHARED the sources are four real clips of 10 s, 640x512 at 30 frames a second, and four recordings of 10 s;
otherwise made-up film with its sound. Clips are spread over the whole source, H.264 at the crf of `recipes/paper.yaml`.
`encode` decodes a source and encodes its clip, `read` takes a clip from its tar to the frames that a phase sees, `open`
reads the texts of a split at the start of a process, `import` is a process until it has imported the trainer: all in
processor seconds, user and system, so that other programs on the machine matter little. `checkpoint` is one of 64
processes' rows of a checkpoint of `base`, by the trainer's own functions, forced to the disk, and dropped from the
system's memory before they are read: by the clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of NumPy: its other threads wait by spinning, and that would count

import torch
import torch.distributed as dist
from common import Work, arguments, clock_seconds, cpu_seconds, report, rounded, table
from film import write_film
from load import demo
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.samples import Clips, Wanted
from mirasol.data.manifest import Example, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encode import EncodedClip, SourceSlice, encode_slice
from mirasol.media.clip import ClipSpec, View
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.paper import paper_config
from mirasol.tokenizer import Tokenizer
from mirasol.training.shards import Rows, write_shards

CRF = 18  # of recipes/paper.yaml
SMALL = ClipSpec("spread", 25.0, 16, 8, 224, 16000, 128, 1)
LARGE = dataclasses.replace(SMALL, frames_per_chunk=32, size=448)
SPECS = {"128 x 224": SMALL, "512 x 448": LARGE}
KINDS = ("AIRPLANE", "BIRD", "DRONE", "HELICOPTER")
PROCESSES = 64
OPENED = (1000, 2000)  # clips of a split whose texts are read


def sources(folder: Path, *, quick: bool) -> list[Path]:
    """Links to real clips and recordings in ``folder``, or one film."""
    shared = Path(os.environ.get("MIRASOL_SHARED", "/nowhere"), "data", "drone")
    sounds = sorted((shared / "audio").glob("*.flac"))[:: max(1, len(list((shared / "audio").glob("*.flac"))) // 4)][:4]
    real = [*(shared / "video" / f"V_{kind}_001.mp4" for kind in KINDS), *sounds]
    folder.mkdir(parents=True)
    if not quick and all(path.is_file() for path in real):
        for path in real:
            (folder / path.name).symlink_to(path)
    else:
        write_film(folder / "film.mp4", 0, 40 if quick else 250)
    return sorted(folder.iterdir())


def made(path: Path, spec: ClipSpec) -> EncodedClip:
    """The one clip of a source, as it goes into a tar."""
    (clip,) = encode_slice(path, SourceSlice(path.name, ((0.0, None),)), spec, CRF)
    if clip.rejected:
        raise RuntimeError(f"{path}: {clip.rejected}")
    return clip


def shards_of(data: Path, paths: list[Path], spec: ClipSpec, target: Path) -> Path:
    """The shards stage over ``paths``: one clip each, all of split train but a copy of the first."""
    rows = [
        Example(
            id=path.name, media=f"media/{path.name}", task="qa", prompt="What?", start=0.0, end=None, answers=("film",),
            split="train", group=path.name, family="film", licence="CC0-1.0",
        )
        for path in paths
    ]  # fmt: skip
    rows.append(dataclasses.replace(rows[0], id="val", split="val", group="val"))
    write_manifest(data / "manifest.jsonl", rows)
    build_shards(data, target, spec, ShardsSpec(crf=CRF, workers=1))
    return target


def child_seconds(work: Work) -> float:
    """Processor seconds of the processes that ``work`` starts and waits for."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begun = spent()
    work()
    return spent() - begun


def timed(work: Work, rounds: int, seconds: Callable[[Work], float], per: float = 1.0) -> dict[str, Any]:
    """Seconds of ``work`` over ``per``, of each round: median, least and most."""
    each = [seconds(work) / per for _ in range(rounds)]
    found = {name: rounded(value) for name, value in zip(("least", "most"), (min(each), max(each)), strict=True)}
    return {"value": rounded(statistics.median(each)), **found, "rounds": rounds}


def open_split(folder: Path, tokenizer: Tokenizer) -> Clips:
    """As at the start of a phase: the split's index, and the texts of each clip from its JSON."""
    return Clips(ShardDataset(folder, "train"), tokenizer, Wanted(("qa",), False, {}))


def rows_of_base(mesh: Any, share: int) -> dict[str, DTensor]:
    """Weights and two moments of ``base`` that one of ``share`` processes writes, as one process' tensors."""
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in Mirasol(paper_config("base")).named_parameters()}
    rows = {}
    for name, shape in shapes.items():
        own = (max(1, shape[0] // share), *shape[1:]) if shape else (1,)
        for kind in ("weight", "first", "second"):
            rows[f"{kind}/{name}"] = DTensor.from_local(torch.zeros(own), mesh, [Shard(0)], run_check=False)
    return rows


def write_rows(folder: Path, rows: dict[str, DTensor]) -> None:
    """As a process of a sharded run does at a checkpoint; then none of it is in the system's memory."""
    for path in folder.iterdir():
        path.unlink()
    write_shards(folder, rows)


def forget(folder: Path) -> None:
    """Drop the files from the system's memory, so that the disk is read."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_rows(folder: Path) -> None:
    """As a process of a sharded run does when it resumes."""
    with contextlib.ExitStack() as stack:
        rows = Rows(folder, stack)
        for name in rows.parts:
            rows.read(name).sum()  # touches it


def checkpoint(folder: Path, rounds: int, share: int) -> dict[str, Any]:
    """Seconds of one process' write and read, and its bytes."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        rows = rows_of_base(init_device_mesh("cpu", (1,)), share)
        folder.mkdir()
        write_rows(folder, rows)
        found: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in folder.iterdir())}
        found["write"], found["read"] = [], []
        for _ in range(rounds):
            found["write"].append(clock_seconds(partial(write_rows, folder, rows)))
            forget(folder)
            found["read"].append(clock_seconds(partial(read_rows, folder)))
    finally:
        dist.destroy_process_group()
    for name in ("write", "read"):
        each = found[name]
        found[name] = {
            "value": rounded(statistics.median(each)), "least": rounded(min(each)), "most": rounded(max(each)),
            "rounds": rounds,
        }  # fmt: skip
    return found


def clips(folder: Path, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Bytes, and processor seconds to make and to read a clip, by its size."""
    paths = sources(folder / "data" / "media", quick=quick)
    found: dict[str, Any] = {}
    for name, spec in SPECS.items():
        if quick:
            spec = dataclasses.replace(spec, chunks=2, frames_per_chunk=2, size=64)
        kinds: dict[str, list[Path]] = {}
        sizes: dict[str, list[int]] = {}
        for path in paths:
            files = made(path, spec).files
            for kind, data in files.items():
                sizes.setdefault(kind, []).append(len(data))
            kinds.setdefault("picture" if "mp4" in files else "sound", []).append(path)
        one: dict[str, Any] = {"bytes": {kind: round(statistics.mean(each)) for kind, each in sizes.items()}}
        for kind, those in kinds.items():
            work = partial(lambda those, spec: [made(path, spec) for path in those], those, spec)
            one[f"encode {kind}"] = timed(work, rounds, cpu_seconds, len(those))
            target = shards_of(folder / "data", those, spec, folder / f"{name} {kind}".replace(" ", ""))
            views = {"": View()} | ({} if quick or spec is SMALL else {" as 128 x 224": View(224, 0, 8)})
            for seen, view in views.items():
                shard_set = ShardDataset(target, "train", view=view)
                work = partial(lambda chosen: [chosen.arrays(n) for n in range(len(chosen))], shard_set)
                one[f"read {kind}{seen}"] = timed(work, rounds, cpu_seconds, len(shard_set))
        found[name] = one
    return found


def main() -> None:
    """Measure, print, and write the figures where ``--json`` says."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"crf": CRF}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["clip"] = clips(folder, options.rounds, quick=options.quick)
        for count in (20, 40) if options.quick else OPENED:
            shards, tokenizer = demo(folder / f"world{count}", count)
            work = partial(open_split, shards, tokenizer)
            figures[f"open, {count} clips"] = timed(work, options.rounds, cpu_seconds, count)
        start = partial(subprocess.run, [sys.executable, "-c", "import mirasol.training.trainer"], check=True)
        figures["import"] = timed(start, options.rounds, child_seconds)
        figures["checkpoint"] = checkpoint(folder / "rows", options.rounds, 10**6 if options.quick else PROCESSES)
    rows: list[tuple[str, Any, Any, Any]] = [("seconds", "median", "least", "most")]
    for key, value in _flat(figures):
        if isinstance(value, dict):
            rows.append((key, *(value[name] for name in ("value", "least", "most"))))
        else:
            rows.append((key, value, "", ""))
    table(rows)
    report("scale", options.json, {}, figures)


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of ``tree``, which are numbers and what :func:`timed` gives."""
    found = []
    for key, value in tree.items():
        leaf = not isinstance(value, dict) or "rounds" in value
        found += [(f"{prefix}{key}", value)] if leaf else _flat(value, f"{prefix}{key}, ")
    return found


if __name__ == "__main__":
    main()
