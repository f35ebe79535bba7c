"""`mirasol data`: bring your own videos, look at a data set, check it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Bring your own videos, look at a data set, check it.")
import_app = typer.Typer(no_args_is_help=True, help="Turn annotations and media into a data folder with a manifest.")
app.add_typer(import_app, name="import")

Media = Annotated[Path, typer.Option(help="the folder with the media", file_okay=False, exists=True)]
Out = Annotated[Path, typer.Option(help="the data folder to write")]
Shards = Annotated[Path, typer.Option(help="the folder of shards")]


class Link(StrEnum):
    """How media get into the data folder."""

    copy = "copy"
    hardlink = "hardlink"


@import_app.command()
def generic(
    annotations: Annotated[Path, typer.Option(help="a .csv or .jsonl file with a row per example")],
    media: Media,
    out: Out = Path("data"),
    link: Annotated[Link, typer.Option(help="copy the media, or hard-link them to save room")] = Link.copy,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="leave out rows whose file is missing")] = False,
) -> None:
    """Your own videos. Columns: media, answers; optional start, end, prompt, task, group, split, family, licence, id.

    Example:  mirasol data import generic --annotations clips.csv --media ~/videos --out data
    """
    from mirasol.data.adapters.generic import import_generic

    _facts(out, import_generic(annotations, media, out, link=link.value, skip_missing=skip_missing))


@import_app.command()
def drone(media: Media, out: Out = Path("data")) -> None:
    """The drone detection set: four classes seen, three kinds of sound, joined by class.

    Example:  mirasol data import drone --media ~/drone --out data
    """
    from mirasol.data.adapters.drone import import_drone

    _facts(out, import_drone(media, out))


@import_app.command()
def fsdd(media: Media, out: Out = Path("data")) -> None:
    """The Free Spoken Digit Dataset: sound only, with its published test split.

    Example:  mirasol data import fsdd --media ~/fsdd/recordings --out data
    """
    from mirasol.data.adapters.fsdd import import_fsdd

    _facts(out, import_fsdd(media, out))


@app.command()
def look(
    out: Annotated[Path, typer.Option(help="the picture to write")] = Path("runs/look.png"),
    split: Annotated[str, typer.Option(help="train, val or test")] = "train",
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the split")] = 12,
    key: Annotated[list[str] | None, typer.Option(help="a clip by its key; may be given again")] = None,
    shards: Shards = Path("build/shards"),
) -> None:
    """Draw clips as the model sees them: frames, spectrogram, questions and answers.

    Example:  mirasol data look --split test --out test.png
    """
    from mirasol.data.look import look as draw
    from mirasol.data.shardset import ShardSet

    print(draw(ShardSet(shards, split), out, clips=clips, keys=key or ()))


@app.command()
def check(shards: Shards = Path("build/shards")) -> None:
    """Read every shard again: its hash, its index, and that it holds nothing but clips.

    Example:  mirasol data check
    """
    from mirasol.core.errors import MirasolError
    from mirasol.data.check import check_shards
    from mirasol.data.manifest import listing

    found = check_shards(shards)
    if found["damaged"]:
        raise MirasolError(listing(f"{shards} is damaged; make it again with `dvc repro shards`", found["damaged"]))
    print(f"{shards}: {found['clips']:,} clips in {found['tars']} tars, all as they were written")


def _facts(out: Path, report: dict[str, Any]) -> None:
    """What an import made, a line per figure, and what comes next."""
    for name, value in report.items():
        print(f"{name:<12}{json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
    print(f"{out}: next, `dvc add {out}` and `dvc repro`")
