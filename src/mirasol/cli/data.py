"""`mirasol data`: bring your own videos, import a published set, look at a data set, check it."""

from __future__ import annotations

import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mirasol.cli import console as say
from mirasol.tasks.base.importer import Adapter, import_set
from mirasol.tasks.registry import ADAPTERS

app = typer.Typer(no_args_is_help=True, help="Bring your own videos, look at a data set, check it.")
import_app = typer.Typer(no_args_is_help=True, help="Turn annotations and media into a data folder with a manifest.")
app.add_typer(import_app, name="import")

Media = Annotated[Path, typer.Option(help="the folder with the media", file_okay=False, exists=True)]
MediaOrNone = Annotated[Path | None, typer.Option(help="the folder with the media", file_okay=False, exists=True)]
Files = Annotated[Path, typer.Option(help="the folder with the set's own files", file_okay=False, exists=True)]
Pattern = Annotated[list[str] | None, typer.Option(help="name of a medium below --media; may be given again")]
Split = Annotated[list[str] | None, typer.Option(help="published split to take, or SPLIT=train|val|test; again")]
SkipMissing = Annotated[bool, typer.Option("--skip-missing", help="leave out rows whose file is missing")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="write nothing, only count; needs no --media")]
Out = Annotated[Path, typer.Option(help="the data folder to write")]
Shards = Annotated[Path, typer.Option(help="the folder of shards")]


SHOWN = 20  # entries of a list or an object of the summary that are printed; import.json has all


class Link(StrEnum):
    """How media get into the data folder."""

    copy = "copy"
    hardlink = "hardlink"
    symlink = "symlink"


LinkBy = Annotated[
    Link | None,
    typer.Option(
        help="copy the media (default, unless the import before did otherwise), hard-link them to save room, or leave "
        "them where they are behind a symlink: for many or large files"
    ),
]


@import_app.command()
def generic(
    annotations: Annotated[Path, typer.Option(help="a .csv or .jsonl file with a row per example")],
    media: Media,
    out: Out = Path("data"),
    link: LinkBy = None,
    skip_missing: SkipMissing = False,
) -> None:
    """Your own videos. Columns: media, answers; optional start, end, prompt, task, group, split, family, licence,
    options, id.

    Example:  mirasol data import generic --annotations clips.csv --media ~/videos --out data
    """
    from mirasol.tasks.generic import import_generic

    _facts(out, import_generic(annotations, media, out, link=link or "", skip_missing=skip_missing))


@import_app.command()
def drone(media: Media, out: Out = Path("data")) -> None:
    """The drone detection set: four classes seen, three kinds of sound, joined by class.

    Example:  mirasol data import drone --media ~/drone --out data
    """
    from mirasol.tasks.drone import import_drone

    _facts(out, import_drone(media, out))


@import_app.command()
def fsdd(media: Media, out: Out = Path("data")) -> None:
    """The Free Spoken Digit Dataset: sound only, with its published test split.

    Example:  mirasol data import fsdd --media ~/fsdd/recordings --out data
    """
    from mirasol.tasks.fsdd import import_fsdd

    _facts(out, import_fsdd(media, out))


def _add_set(adapter: Adapter) -> None:
    """The command of a published set."""

    def command(
        annotations: Files,
        media: MediaOrNone = None,
        out: Out = Path("data"),
        split: Split = None,
        pattern: Pattern = None,
        link: LinkBy = None,
        skip_missing: SkipMissing = False,
        dry_run: DryRun = False,
    ) -> None:
        summary = import_set(
            adapter,
            annotations,
            media,
            out,
            splits=split or (),
            patterns=pattern or (),
            link=link or "",
            skip_missing=skip_missing,
            dry_run=dry_run,
        )
        _facts(None if dry_run else out, summary)

    files = "; ".join(f"{name}: {' or '.join(names)}" for name, names in adapter.files.items())
    text = (
        f"{adapter.about}\n\nFiles of each split: {files}.\n\nMedia are called {' or '.join(adapter.patterns)}, "
        f"or as --pattern says with the fields {', '.join(adapter.fields)}.\n\n"
        f"Example:  mirasol data import {adapter.name} --annotations ~/{adapter.name} --media ~/videos --out data"
    )
    import_app.command(adapter.name, help=text)(command)


for _adapter in ADAPTERS.values():
    _add_set(_adapter)


class PhaseName(StrEnum):
    """A training phase."""

    pretrain = "pretrain"
    audio_pretrain = "audio_pretrain"
    finetune = "finetune"


@app.command()
def look(
    out: Annotated[Path, typer.Option(help="the picture to write; with -1, -2 ... where it takes several")] = Path(
        "runs/look.png"
    ),
    split: Annotated[str | None, typer.Option(help="train (default), val or test")] = None,
    shard: Annotated[str | None, typer.Option(help="one tar instead of a split, such as train-00002.tar")] = None,
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the split or the tar")] = 12,
    key: Annotated[list[str] | None, typer.Option(help="a clip by its key; may be given again")] = None,
    phase: Annotated[PhaseName | None, typer.Option(help="as this phase of params.yaml gets them")] = None,
    start_sample: Annotated[int, typer.Option(min=0, help="with --phase: the first training sample")] = 0,
    shards: Shards = Path("build/shards"),
) -> None:
    """Draw clips as the model sees them: frames, spectrogram, questions and answers, and the state of each clip.

    With --phase they are that phase's training samples: cropped, mixed, muted ... with the weight of each text.

    Example:  mirasol data look --phase finetune --clips 24 --out augmented.png
    """
    from mirasol.core.errors import MirasolError
    from mirasol.data.contact_sheet import look as draw
    from mirasol.data.loading.dataset import ShardDataset

    if phase is not None:
        if split or shard or key:
            raise MirasolError("--phase shows the samples of training in their order: without --split, --shard, --key")
        pages = _look_at_phase(phase.value, shards, out, clips, start_sample)
    else:
        if start_sample or (split and shard):
            what = "--start-sample goes with --phase" if start_sample else "a shard is of one split: without --split"
            raise MirasolError(what)
        name = shard.partition("-")[0] if shard else split or "train"
        pages = draw(ShardDataset(shards, name, any_size=True), out, clips=clips, keys=key or (), shard=shard)
    for page in pages:
        print(page)


def _look_at_phase(name: str, shards: Path, out: Path, clips: int, start: int) -> list[Path]:
    from mirasol.data.contact_sheet import look_at_training
    from mirasol.pipeline.params.load import load_params
    from mirasol.pipeline.paths import CACHE, TOKENIZER
    from mirasol.training.data_module import Feed
    from mirasol.training.phases import find_phase

    params = load_params()
    with tempfile.TemporaryDirectory() as folder:  # the list of damaged clips of a real run stays as it is
        feed = Feed(
            find_phase(name).tasks,
            getattr(params, name),
            params.training,
            clip=params.clip,
            shards=shards,
            tokenizer=TOKENIZER,
            cache=CACHE,
            runs=Path(folder),
        )
        loader = feed.train_loader(start, rank=0, world=1)
        return look_at_training(loader, feed.tokenizer, out, clips=clips, name=name)


@app.command()
def check(
    shards: Shards = Path("build/shards"),
    data: Annotated[Path, typer.Option(help="the data folder, if its media are behind a link")] = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="print what was found as JSON")] = False,
) -> None:
    """Read every shard again: its hash, its index, and that it holds nothing but clips; exit status 2 if one is not.

    Media that were imported with --link symlink are compared with their listing, too.

    Example:  mirasol data check
    """
    from mirasol.core.errors import MirasolError
    from mirasol.data.linked_media import changed_media
    from mirasol.data.manifest import listing
    from mirasol.data.verify import check_shards

    found = check_shards(shards) | {"changed_media": changed_media(data)}
    wrong = [*found["damaged"], *found["changed_media"]]
    if as_json:
        print(json.dumps(found | {"sound": not wrong}, indent=2, ensure_ascii=False))
    if not wrong:
        if not as_json:
            print(f"{shards}: {found['clips']:,} clips in {found['tars']} tars, all as they were written")
        return
    messages = []
    if found["damaged"]:
        where = f" after removing {', '.join(found['remote'])}" if found["remote"] else ""
        title = (
            f"{shards} is damaged, {len(found['lost']):,} of {found['clips']:,} clips are lost; make it again with "
            f"`dvc repro -f shards`{where}: finished parts are kept, so that it is only written anew"
        )
        messages.append(listing(title, found["damaged"]))
        if found["lost"]:
            messages.append(listing("Lost clips", found["lost"]))
    if found["changed_media"]:
        title = f"{len(found['changed_media'])} media of {data} have changed; import them again, then `dvc add {data}`"
        messages.append(listing(title, found["changed_media"]))
    raise MirasolError("\n".join(messages))


def _facts(out: Path | None, report: dict[str, Any]) -> None:
    """What an import made as JSON, and what comes next; long lists are cut."""
    print(json.dumps(_cut(report), indent=2, ensure_ascii=False))
    say.note("nothing was written" if out is None else f"{out}: next, `dvc add {out}` and `dvc repro`")


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _cut(inner) for name, inner in list(value.items())[:SHOWN]}
        return kept | ({"…": f"{len(value) - SHOWN} more"} if len(value) > SHOWN else {})
    if isinstance(value, list):
        return [_cut(inner) for inner in value[:SHOWN]] + ([f"… {len(value) - SHOWN} more"] if value[SHOWN:] else [])
    return value
