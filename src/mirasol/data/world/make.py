"""The built-in world: a procedural audio-visual data set of real video files with exact truth.

docs/world.md describes the clips and the questions, and explains why equal seeds give equal bytes everywhere.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, write_json
from mirasol.core.progress import Progress
from mirasol.data.manifest import Example, write_manifest
from mirasol.data.world.hard import HARD_FAMILIES, hard_texts, sample_hard
from mirasol.data.world.questions import FAMILIES, Family, Text, texts
from mirasol.data.world.scene import BaseScene, sample_clip
from mirasol.data.world.video import encode

LICENCE = "CC0-1.0"
CLIPS_PER_FOLDER = 1000
BATCH = 50  # clips for a process at a time
CHECKED_EVERY = 100  # to check an existing world, every hundredth clip is made again

Item = tuple[str, int]  # split, index


@dataclass(frozen=True)
class Variant:
    """A kind of world: its clips, their texts, the needs of its questions, its usual number of clips."""

    sample: Callable[[int, str, int], Any]
    texts: Callable[[Any], list[Text]]
    families: Mapping[str, Family]
    clips: int


VARIANTS = {
    "demo": Variant(sample_clip, texts, FAMILIES, clips=12000),
    "hard": Variant(sample_hard, hard_texts, HARD_FAMILIES, clips=16000),
}


@dataclass(frozen=True)
class World:
    """One world: a variant, a seed, and its clips. Picklable, for processes."""

    variant: str
    seed: int
    items: tuple[Item, ...]

    def video(self, item: Item) -> bytes:
        """The file of a clip."""
        return encode(VARIANTS[self.variant].sample(self.seed, *item))

    def examples(self) -> Iterator[Example]:
        """The rows of the manifest."""
        variant = VARIANTS[self.variant]
        for item in self.items:
            scene = variant.sample(self.seed, *item)
            yield from (_example(scene, number, text) for number, text in enumerate(variant.texts(scene)))

    def write_texts(self, folder: Path) -> None:
        """Write the manifest, and the question families with their needs and the chances of guessing."""
        write_manifest(folder / "manifest.jsonl", self.examples())
        families = VARIANTS[self.variant].families
        write_json(folder / "families.json", {name: dataclasses.asdict(family) for name, family in families.items()})

    def is_at(self, out: Path) -> bool:
        """Whether ``out`` holds this world: the same texts, all files, and the bytes of every hundredth.

        Answers in seconds; DVC checks the whole.
        """
        names = ("manifest.jsonl", "families.json")
        if not all((out / name).is_file() for name in (*names, *(media_path(*item) for item in self.items))):
            return False
        with tempfile.TemporaryDirectory() as folder:
            self.write_texts(Path(folder))
            if any((Path(folder) / name).read_bytes() != (out / name).read_bytes() for name in names):
                return False
        return all((out / media_path(*i)).read_bytes() == self.video(i) for i in self.items[::CHECKED_EVERY])


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

    The folder appears whole or not at all. An equal world in ``out`` stays as it is.

    Args:
        out: the folder to make.
        clips: clips of the training split, by default the variant's usual number; validation has a fortieth of it
            and test three fortieths.
        seed: equal seeds give equal bytes, whatever the processor and the number of workers.
        workers: processes.
        force: replace ``out``.
        variant: a key of ``VARIANTS``.

    Returns:
        {"clips": {split: count}, "examples": count, "bytes": of all media, "written": False if it already existed}.

    Raises:
        MirasolError: ``out`` holds other files, the disk is full or read-only, or an encoder is missing.
    """
    if variant not in VARIANTS:
        raise MirasolError(f"world {variant!r}: expected one of {', '.join(VARIANTS)}")
    clips = VARIANTS[variant].clips if clips is None else clips
    if clips < 1 or seed < 0 or workers < 1:
        raise MirasolError(f"a world needs clips >= 1, seed >= 0, workers >= 1: got {clips}, {seed}, {workers}")
    out = Path(out)
    items = plan(clips)
    world = World(variant, seed, tuple(items))
    report: dict[str, Any] = {"clips": {s: sum(s == split for split, _ in items) for s in ("train", "val", "test")}}
    if not force and out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        if not world.is_at(out):
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
        report["bytes"] = _write_media(temporary, world, workers)
        world.write_texts(temporary)
        report["examples"] = _lines(temporary / "manifest.jsonl")
        _put(temporary, out)
    except OSError as error:
        raise disk_error(error, out) or error from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report | {"written": True}


def plan(clips: int) -> list[Item]:
    """Every clip of a world with ``clips`` training clips, as (split, index)."""
    counts = {"train": clips, "val": max(clips // 40, 4), "test": max(clips * 3 // 40, 12)}
    return [(split, index) for split, count in counts.items() for index in range(count)]


def media_path(split: str, index: int) -> str:
    """The path of a clip in the folder."""
    return f"media/{split}/{index // CLIPS_PER_FOLDER:03d}/{split}-{index:05d}.mp4"


def write_clips(folder: Path, world: World, batch: list[Item]) -> int:
    """Write the files of some clips; returns their bytes."""
    return sum((folder / media_path(*item)).write_bytes(world.video(item)) for item in batch)


def _example(scene: BaseScene, number: int, text: Text) -> Example:
    return Example(
        id=f"{scene.name}-{number:02d}", media=media_path(scene.split, scene.index), start=None, end=None,
        task=text.task, prompt=text.prompt, answers=(text.answer,), split=scene.split, group=scene.group,
        family=text.family, licence=LICENCE,
    )  # fmt: skip


def _write_media(folder: Path, world: World, workers: int) -> int:
    """Write every clip's file below ``folder``; returns their bytes."""
    batches = [list(world.items[i : i + BATCH]) for i in range(0, len(world.items), BATCH)]
    for item in world.items:
        if item[1] % CLIPS_PER_FOLDER == 0:
            (folder / media_path(*item)).parent.mkdir(parents=True)
    total = 0
    with Progress("world", len(world.items), "clips") as progress:
        for count, size in _sizes(folder, world, batches, min(workers, len(batches))):
            total += size
            progress.advance(count)
    return total


def _sizes(folder: Path, world: World, batches: list[list[Item]], workers: int) -> Iterator[tuple[int, int]]:
    """Make the batches; yields (clips, bytes) of each finished one."""
    if workers == 1:
        for batch in batches:
            yield len(batch), write_clips(folder, world, batch)
        return
    small = dataclasses.replace(world, items=())  # a batch names its clips
    # Spawned: forking a process with threads (a progress bar has one) can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[int], int] = {pool.submit(write_clips, folder, small, b): len(b) for b in batches}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            for future in running:
                future.cancel()


def _put(temporary: Path, out: Path) -> None:
    """Rename ``temporary`` to ``out``, replacing an existing one."""
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
