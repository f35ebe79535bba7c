"""The built-in world: a procedural audio-visual data set of real video files with exact truth.

``make_world`` writes it; ``sample_clip``, ``render``, ``sound`` and ``texts`` are its pure parts. docs/world.md
describes what it shows, what is asked, and why the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, write_json
from mirasol.core.progress import Progress
from mirasol.data.manifest import Example, write_manifest
from mirasol.data.world.hard import HARD_FAMILIES, HardScene, hard_texts, sample_hard
from mirasol.data.world.questions import FAMILIES, Family, Text, texts
from mirasol.data.world.scene import Scene, sample_clip
from mirasol.data.world.sound import samples, sound
from mirasol.data.world.video import encode, render, render_yuv

__all__ = ["encode", "make_world", "render", "render_yuv", "sample_clip", "samples", "sound", "texts"]

LICENCE = "CC0-1.0"
CLIPS_PER_FOLDER = 1000
BATCH = 50  # clips that a process makes at a time
CHECKED_EVERY = 100  # an existing world is compared with every hundredth clip made again

Item = tuple[str, int]  # split, index


@dataclass(frozen=True)
class Variant:
    """A world: how its clips are drawn, what is asked of them, what the questions need, how many clips it has."""

    sample: Callable[[int, str, int], Any]
    texts: Callable[[Any], list[Text]]
    families: Mapping[str, Family]
    clips: int


VARIANTS = {
    "demo": Variant(sample_clip, texts, FAMILIES, clips=12000),
    "hard": Variant(sample_hard, hard_texts, HARD_FAMILIES, clips=16000),
}


def make_world(
    out: Path,
    clips: int | None = None,
    seed: int = 1,
    workers: int = 2,
    *,
    force: bool = False,
    variant: str = "demo",
) -> dict[str, Any]:
    """Write the world into ``out``: ``media/``, ``manifest.jsonl``, ``families.json``.

    The folder appears whole or not at all. One that holds the same world already is left as it is.

    Args:
        out: the folder to make.
        clips: clips of the training split, the variant's own number if ``None``; validation has a fortieth of it
            and test three fortieths.
        seed: equal seeds give equal bytes, whatever the processor and the number of workers.
        workers: processes.
        force: replace what is in ``out``.
        variant: a key of ``VARIANTS``.

    Returns:
        {"clips": {split: count}, "examples": count, "bytes": of all media, "written": False if it stood already}.

    Raises:
        MirasolError: ``out`` holds something else, the disk is full or read-only, or an encoder is missing.
    """
    if variant not in VARIANTS:
        raise MirasolError(f"world {variant!r}: expected one of {', '.join(VARIANTS)}")
    clips = VARIANTS[variant].clips if clips is None else clips
    if clips < 1 or seed < 0 or workers < 1:
        raise MirasolError(f"a world needs clips >= 1, seed >= 0, workers >= 1: got {clips}, {seed}, {workers}")
    out = Path(out)
    items = plan(clips)
    report: dict[str, Any] = {"clips": {s: sum(s == split for split, _ in items) for s in ("train", "val", "test")}}
    if not force and out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        if not stands(out, items, seed, variant):
            raise MirasolError(
                f"{out} holds something else than this world ({clips} clips, seed {seed}): "
                "choose another --out, or replace it with --force"
            )
        size = sum((out / media_path(*item)).stat().st_size for item in items)
        return report | {"examples": _lines(out / "manifest.jsonl"), "bytes": size, "written": False}
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".tmp"))
    except OSError as error:
        raise disk_error(error, out) or error from error
    try:
        temporary.chmod(0o755)
        report["bytes"] = _write_media(temporary, items, seed, workers, variant)
        rows = list(examples(items, seed, variant))
        write_manifest(temporary / "manifest.jsonl", rows)
        write_families(temporary / "families.json", variant)
        _put(temporary, out)
    except OSError as error:
        raise disk_error(error, out) or error from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report | {"examples": len(rows), "written": True}


def plan(clips: int) -> list[Item]:
    """Every clip of a world with ``clips`` clips to train on, as (split, index)."""
    counts = {"train": clips, "val": max(clips // 40, 4), "test": max(clips * 3 // 40, 12)}
    return [(split, index) for split, count in counts.items() for index in range(count)]


def media_path(split: str, index: int) -> str:
    """Where a clip lies in the folder."""
    return f"media/{split}/{index // CLIPS_PER_FOLDER:03d}/{split}-{index:05d}.mp4"


def examples(items: Iterable[Item], seed: int, variant: str = "demo") -> Iterator[Example]:
    """The manifest's rows."""
    world = VARIANTS[variant]
    for split, index in items:
        scene = world.sample(seed, split, index)
        for number, text in enumerate(world.texts(scene)):
            yield example(scene, number, text)


def example(scene: Scene | HardScene, number: int, text: Text) -> Example:
    """The manifest's row of one text about a clip."""
    return Example(
        id=f"{scene.name}-{number:02d}",
        media=media_path(scene.split, scene.index),
        start=None,
        end=None,
        task=text.task,
        prompt=text.prompt,
        answers=(text.answer,),
        split=scene.split,
        group=scene.group,
        family=text.family,
        licence=LICENCE,
    )


def write_families(path: Path, variant: str = "demo") -> None:
    """Write the question families with what each needs and what can be guessed."""
    write_json(path, {name: dataclasses.asdict(family) for name, family in VARIANTS[variant].families.items()})


def stands(out: Path, items: list[Item], seed: int, variant: str = "demo") -> bool:
    """Whether ``out`` is the world of ``items``: the same texts, all files, and every hundredth file's bytes.

    The whole is checked by DVC; this answers in seconds.
    """
    files = ["manifest.jsonl", "families.json", *(media_path(*item) for item in items)]
    if not all((out / name).is_file() for name in files):
        return False
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder) / files[0], examples(items, seed, variant))
        write_families(Path(folder) / files[1], variant)
        if any((Path(folder) / name).read_bytes() != (out / name).read_bytes() for name in files[:2]):
            return False
    sample = VARIANTS[variant].sample
    return all((out / media_path(*i)).read_bytes() == encode(sample(seed, *i)) for i in items[::CHECKED_EVERY])


def _write_media(folder: Path, items: list[Item], seed: int, workers: int, variant: str) -> int:
    """Write every clip's file below ``folder``; returns their bytes."""
    for item in items[::BATCH] + [i for i in items if i[1] % CLIPS_PER_FOLDER == 0]:
        (folder / media_path(*item)).parent.mkdir(parents=True, exist_ok=True)
    batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
    total = 0
    with Progress("world", len(items), "clips") as progress:
        for count, size in _sizes(folder, batches, seed, min(workers, len(batches)), variant):
            total += size
            progress.advance(count)
    return total


def _sizes(folder: Path, batches: list[list[Item]], seed: int, workers: int, variant: str) -> Iterator[tuple[int, int]]:
    """Make the batches; yields (clips, bytes) of each as it is ready."""
    if workers == 1:
        for batch in batches:
            yield len(batch), write_clips(folder, batch, seed, variant)
        return
    # Spawned: forking a process that has threads (a progress bar has one) can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[int], int] = {pool.submit(write_clips, folder, b, seed, variant): len(b) for b in batches}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            for future in running:
                future.cancel()


def write_clips(folder: Path, batch: list[Item], seed: int, variant: str = "demo") -> int:
    """Write the files of some clips; returns their bytes."""
    total = 0
    for split, index in batch:
        data = encode(VARIANTS[variant].sample(seed, split, index))
        (folder / media_path(split, index)).write_bytes(data)
        total += len(data)
    return total


def _put(temporary: Path, out: Path) -> None:
    """Rename ``temporary`` to ``out``, replacing what is there."""
    old = temporary.with_suffix(".old")
    if out.exists():
        out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
