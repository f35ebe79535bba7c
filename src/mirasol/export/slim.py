"""A small copy of a bundle for a repository: one opset, three sample clips, and its answers about them."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, sha256_file, write_json
from mirasol.data.world.make import VARIANTS, World
from mirasol.data.world.questions import Text
from mirasol.runtime.contract import CONTRACT_FILE, Contract, read_contract
from mirasol.runtime.model import load
from mirasol.runtime.samples import SAMPLES, SAMPLES_FILE, Sample

LARGEST = 6_000_000  # bytes: a repository keeps every version of it for ever
CARD_FILE = "README.md"
WORLD, SEED, SPLIT = "demo", 1, "test"
ASKED = {  # family -> name of its clip; the answer to the last one changes while the clip runs
    "flash_of_sound": "colours_and_sounds.mp4",
    "gone": "a_ring_that_goes.mp4",
    "next_sound": "sounds_in_order.mp4",
}


def slim(source: Path, out: Path) -> Contract:
    """Write a copy of the bundle ``source`` with the graphs of one opset and sample clips to ``out``.

    The clips are the first of the built-in world's test split that have a question of each family in ``ASKED``. An
    earlier copy is replaced once the new one is complete.

    Raises:
        MirasolError: ``source`` is no bundle or fails its golden outputs, the copy has more than ``LARGEST`` bytes,
            ``out`` holds other files, or the disk is full.
    """
    whole = read_contract(source)
    if source.resolve() == out.resolve():
        raise MirasolError(f"{out}: the copy would replace the bundle itself: choose another --out")
    if out.exists() and not (out / CONTRACT_FILE).is_file():
        raise MirasolError(f"{out} holds something else than a bundle: choose another --out, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            contract = _write(whole, source, Path(folder) / out.name)
            size = size_of(Path(folder) / out.name)
            if size > LARGEST:
                raise MirasolError(
                    f"{source}: its copy would have {size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:.0f}: "
                    "give a bundle of lower precision, such as build/bundle/int8"
                )
            if out.exists():
                out.replace(Path(folder) / "earlier")
            (Path(folder) / out.name).replace(out)
    except OSError as error:
        raise disk_error(error, out) or error from error
    return contract


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(whole: Contract, source: Path, out: Path) -> Contract:
    (out / SAMPLES).mkdir(parents=True)
    graphs = [graph.file for graph in whole.graphs.values()]
    weights = [name for name in whole.files if name.removesuffix(".data") in graphs and name not in graphs]
    for name in (*graphs, *weights, whole.tokenizer.file, whole.golden.file, whole.licence):
        shutil.copyfile(source / name, out / name)
    contract = dataclasses.replace(whole, opsets={str(whole.opset): whole.opsets[str(whole.opset)]})
    clips = list(_clips(out / SAMPLES))
    _seal(contract, out)  # the model answers from the copy, before its card says so
    model = load(out, threads=1, provider="cpu")
    model.engine.check_golden()
    samples = [
        dataclasses.replace(clip, answer=str(model.answer(out / SAMPLES / clip.file, clip.question))) for clip in clips
    ]
    write_json(out / SAMPLES / SAMPLES_FILE, [dataclasses.asdict(sample) for sample in samples])
    card = (source / CARD_FILE).read_text(encoding="utf-8")
    (out / CARD_FILE).write_text("\n".join([card.rstrip(), "", *_about(whole, samples), ""]), encoding="utf-8")
    return _seal(contract, out)


def _clips(folder: Path) -> Iterator[Sample]:
    """Write the sample clips to ``folder``."""
    world = World(WORLD, SEED, ())
    index = 0
    for family, name in ASKED.items():
        while (text := next((t for t in _texts(index) if t.family == family), None)) is None:
            index += 1
        (folder / name).write_bytes(world.video((SPLIT, index)))
        yield Sample(name, text.prompt, "", text.answer, sha256_file(folder / name))
        index += 1


def _texts(index: int) -> list[Text]:
    variant = VARIANTS[WORLD]
    return variant.texts(variant.sample(SEED, SPLIT, index))


def _seal(contract: Contract, folder: Path) -> Contract:
    """Write the contract with the hash of every file of the bundle."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != CONTRACT_FILE)
    sealed = dataclasses.replace(contract, files={path.name: sha256_file(path) for path in files})
    (folder / CONTRACT_FILE).write_text(sealed.to_json(), encoding="utf-8")
    return sealed


def _about(whole: Contract, samples: list[Sample]) -> list[str]:
    return [
        "## This copy",
        "",
        f"Made by `mirasol bundle slim` from the bundle with the hash `{whole.sha256}`. It has the graphs of opset",
        f"{whole.opset} alone. `{SAMPLES}/` holds the first clips of the built-in world's test split (seed {SEED})",
        "with such a question:",
        "",
        "| clip | question | answer | right |",
        "| --- | --- | --- | --- |",
        *(f"| {s.file} | {s.question} | {s.answer} | {s.expected} |" for s in samples),
    ]
