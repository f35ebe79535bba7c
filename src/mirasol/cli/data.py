"""`mirasol data`: import your own videos or a published set, draw and check a data set."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mirasol.cli.console import Json, note, print_json, print_paths, table, takes
from mirasol.tasks.base.importer import Adapter, ImportOptions, import_set
from mirasol.tasks.registry import ADAPTERS

app = typer.Typer(no_args_is_help=True, help="Import your own videos, draw and check a data set.")
import_app = typer.Typer(no_args_is_help=True, help="Turn annotations and media into a data folder with a manifest.")
app.add_typer(import_app, name="import")

Media = Annotated[Path, typer.Option(help="the folder with the media", file_okay=False, exists=True)]
SkipMissing = Annotated[bool, typer.Option("--skip-missing", help="leave out rows whose file is missing")]
Append = Annotated[bool, typer.Option("--append", help="add to the data sets in --out instead of replacing them")]
Out = Annotated[Path, typer.Option(help="the data folder to write")]
Shards = Annotated[Path, typer.Option(help="the folder of shards")]
NEXT = "data: next, `dvc add data` and `dvc repro`"
SHOWN = 5  # entries of a list or an object in the printed summary; --json prints all


class Link(StrEnum):
    """How media get into the data folder."""

    copy = "copy"
    hardlink = "hardlink"
    symlink = "symlink"


LinkBy = Annotated[
    Link | None,
    typer.Option(
        help="copy the media (default, unless the last import did otherwise), hard-link them to save space, or leave "
        "them where they are behind a symlink: for many or large files"
    ),
]


@dataclass(frozen=True)
class OwnMedia:
    """Options of the import of your own videos."""

    annotations: Annotated[Path | None, typer.Option(help="a .csv or .jsonl file with a row per example")] = None
    media: Annotated[Path | None, typer.Option(help="the folder with the media", file_okay=False, exists=True)] = None
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="a folder of media without annotations, for pretrain", file_okay=False, exists=True),
    ] = None
    out: Out = Path("data")
    link: LinkBy = None
    skip_missing: SkipMissing = False
    append: Append = False
    as_json: Json = False


@import_app.command()
@takes(OwnMedia)
def generic(given: OwnMedia) -> None:
    """Import your own videos.

    Columns: media, answers; optional start, end, prompt, task, group, split, family, licence, options, id, set.

    Example:  mirasol data import generic --annotations clips.csv --media ~/videos --out data
    """
    from mirasol.core.errors import MirasolError
    from mirasol.tasks.generic import import_generic

    media = given.media or (None if given.annotations else given.unlabelled)
    if media is None or (given.annotations is None and given.unlabelled is None):
        missing = "--media, the folder with the media" if media is None else "--annotations, their file"
        raise MirasolError(f"{missing}, is missing; media without annotations are imported with --unlabelled FOLDER")
    summary = import_generic(
        given.annotations,
        media,
        given.out,
        link=given.link or "",
        skip_missing=given.skip_missing,
        append=given.append,
        unlabelled=given.unlabelled,
    )
    _summary(given.out, summary, given.as_json)


@import_app.command()
def drone(media: Media, out: Out = Path("data"), as_json: Json = False) -> None:
    """Import the drone detection set: four classes seen, three kinds of sound, joined by class.

    Example:  mirasol data import drone --media ~/drone --out data
    """
    from mirasol.tasks.drone import import_drone

    _summary(out, import_drone(media, out), as_json)


@import_app.command()
def fsdd(media: Media, out: Out = Path("data"), as_json: Json = False) -> None:
    """Import the Free Spoken Digit Dataset: sound only, with its published test split.

    Example:  mirasol data import fsdd --media ~/fsdd/recordings --out data
    """
    from mirasol.tasks.fsdd import import_fsdd

    _summary(out, import_fsdd(media, out), as_json)


@dataclass(frozen=True)
class PublishedSet:
    """Options of the import of a published set."""

    annotations: Annotated[Path, typer.Option(help="the folder with the set's own files", file_okay=False, exists=True)]
    media: Annotated[Path | None, typer.Option(help="the folder with the media", file_okay=False, exists=True)] = None
    out: Out = Path("data")
    split: Annotated[
        list[str] | None, typer.Option(help="published split to take, or SPLIT=train|val|test; repeatable")
    ] = None
    pattern: Annotated[list[str] | None, typer.Option(help="name of a medium below --media; repeatable")] = None
    link: LinkBy = None
    skip_missing: SkipMissing = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing, only count; needs no --media")] = False
    append: Append = False
    as_json: Json = False


@import_app.command()
def webdataset(
    tars: Annotated[list[str], typer.Argument(help="paths or URLs of tars; braces expand: 'clips/{00000..00009}.tar'")],
    out: Out = Path("data"),
    split: Annotated[str, typer.Option(help="train, val, test, or hash: 80/10/10 by the hash of the key")] = "hash",
    caption_key: Annotated[
        str, typer.Option(help="key of the caption in the JSON; default caption, text, or the txt")
    ] = "",
    append: Append = False,
    name: Annotated[str, typer.Option("--set", help="name of this data set, among several in --out")] = "webdataset",
    as_json: Json = False,
) -> None:
    """Import tars in the WebDataset layout, as video2dataset writes them: videos or sounds with captions.

    Example:  mirasol data import webdataset 'clips/{00000..00009}.tar' --out data
    """
    from mirasol.tasks.webdataset import import_webdataset

    _summary(out, import_webdataset(tars, out, split, caption_key, append=append, name=name), as_json)


def _add_set(adapter: Adapter) -> None:
    """Declare the command of a published set."""

    @takes(PublishedSet)
    def command(given: PublishedSet) -> None:
        summary = import_set(
            adapter,
            given.annotations,
            given.media,
            given.out,
            ImportOptions(
                splits=given.split or (),
                patterns=given.pattern or (),
                link=given.link or "",
                skip_missing=given.skip_missing,
                dry_run=given.dry_run,
                append=given.append,
            ),
        )
        _summary(None if given.dry_run else given.out, summary, given.as_json)

    files = "; ".join(f"{name}: {' or '.join(names)}" for name, names in adapter.files.items())
    text = (
        f"Import {adapter.about}\n\nFiles of each split: {files}.\n\nMedia are called {' or '.join(adapter.patterns)}, "
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


@dataclass(frozen=True)
class Look:
    """Options of `mirasol data look`."""

    out: Annotated[Path, typer.Option(help="the picture to write; several pages end in -1, -2 ...")] = Path(
        "runs/look.png"
    )
    split: Annotated[str | None, typer.Option(help="train (default), val or test")] = None
    shard: Annotated[str | None, typer.Option(help="one tar instead of a split, such as train-00002.tar")] = None
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the split or the tar")] = 12
    key: Annotated[list[str] | None, typer.Option(help="a clip by its key; repeatable")] = None
    phase: Annotated[PhaseName | None, typer.Option(help="as this phase of params.yaml gets them")] = None
    start_sample: Annotated[int, typer.Option(min=0, help="with --phase: the first training sample")] = 0
    shards: Shards = Path("build/shards")
    as_json: Json = False


@app.command()
@takes(Look)
def look(given: Look) -> None:
    """Draw clips as the model sees them: frames, spectrogram, questions and answers, and the state of each clip.

    With --phase they are that phase's training samples: cropped, mixed, muted ... with the weight of each text.

    Example:  mirasol data look --phase finetune --clips 24 --out augmented.png
    """
    from mirasol.core.errors import MirasolError
    from mirasol.data.contact_sheet import contact_sheet
    from mirasol.data.loading.dataset import ShardDataset

    if given.phase is not None:
        if given.split or given.shard or given.key:
            raise MirasolError("--phase shows the samples of training in their order: without --split, --shard, --key")
        pages = _look_at_phase(given.phase.value, given.shards, given.out, given.clips, given.start_sample)
    else:
        if given.start_sample:
            raise MirasolError("--start-sample goes with --phase")
        if given.split and given.shard:
            raise MirasolError("a shard is of one split: without --split")
        name = given.shard.partition("-")[0] if given.shard else given.split or "train"
        dataset = ShardDataset(given.shards, name, any_size=True)
        pages = contact_sheet(dataset, given.out, clips=given.clips, keys=given.key or (), shard=given.shard)
    print_paths(pages, given.as_json)


def _look_at_phase(name: str, shards: Path, out: Path, clips: int, start: int) -> list[Path]:
    from mirasol.data.contact_sheet import training_contact_sheet
    from mirasol.pipeline.params.load import load_params
    from mirasol.pipeline.paths import CACHE, TOKENIZER
    from mirasol.training.config import PhaseRun, RunPaths
    from mirasol.training.data_module import PhaseDataModule

    params = load_params()
    with tempfile.TemporaryDirectory() as folder:  # keeps the list of damaged clips of a real run
        paths = RunPaths(shards, TOKENIZER, CACHE, runs=Path(folder), out=Path(folder))
        data = PhaseDataModule(PhaseRun(name, getattr(params, name), params.training, params.clip, paths), start)
        return training_contact_sheet(data.train_loader(), data.tokenizer, out, clips=clips, name=name)


@app.command()
def probe(
    data: Annotated[
        Path, typer.Argument(help="a data folder, or media with annotations.csv", file_okay=False, exists=True)
    ],
    annotations: Annotated[Path | None, typer.Option(help="the file of annotations, if not next to the media")] = None,
    out: Annotated[Path | None, typer.Option(help="write the proposed params file")] = None,
    as_json: Json = False,
) -> None:
    """Say what a data set is like, and propose settings of a training with a reason each.

    Example:  mirasol data probe ~/videos --out mine.yaml
    """
    from mirasol.core.files import atomic_write
    from mirasol.pipeline.own import facts_of
    from mirasol.pipeline.params.proposal import as_yaml, propose

    facts = facts_of(data, annotations)
    facts.check_splits(data)
    chosen = propose(facts)
    if out is not None:
        with atomic_write(out, "w") as file:
            file.write(as_yaml(chosen, f"{sum(facts.clips.values()):,} clips"))
    report = facts.report()
    if as_json:
        print_json({"facts": report, "params": {key: {"value": v, "reason": why} for key, (v, why) in chosen.items()}})
        return
    questions = report.pop("questions")
    table([(key.replace("_", " "), _short(value)) for key, value in report.items()])
    for one in questions[:SHOWN]:
        print(f"{one['prompt']}  {one['rows']:,} rows, chance {one['chance']:.0%}: {_short(one['answers'])}")
    print("\nproposed:")
    table([(key, str(value), why) for key, (value, why) in chosen.items()])


@app.command()
def check(
    shards: Shards = Path("build/shards"),
    data: Annotated[Path, typer.Option(help="the data folder, if its media are behind a link")] = Path("data"),
    as_json: Json = False,
) -> None:
    """Check every shard: its hash, its index, and that it holds nothing but clips.

    Exits with 2 if a shard is damaged. Media imported with --link symlink are compared with their listing, too.

    Example:  mirasol data check
    """
    from mirasol.core.errors import MirasolError, listing
    from mirasol.data.linked_media import changed_media
    from mirasol.data.verify import check_shards

    found = check_shards(shards) | {"changed_media": changed_media(data)}
    wrong = [*found["damaged"], *found["changed_media"]]
    if as_json:
        print_json(found | {"sound": not wrong})
    if not wrong:
        if not as_json:
            print(f"{shards}: {found['clips']:,} clips in {found['tars']} tars, all as they were written")
        return
    messages = []
    if found["damaged"]:
        where = f" after removing {', '.join(found['remote'])}" if found["remote"] else ""
        title = (
            f"{shards} is damaged, {len(found['lost']):,} of {found['clips']:,} clips are lost; make it again with "
            f"`dvc repro -f shards`{where}: finished parts are kept and only written again"
        )
        messages.append(listing(title, found["damaged"]))
        if found["lost"]:
            messages.append(listing("Lost clips", found["lost"]))
    if found["changed_media"]:
        title = f"{len(found['changed_media'])} media of {data} have changed; import them again, then `dvc add {data}`"
        messages.append(listing(title, found["changed_media"]))
    raise MirasolError("\n".join(messages))


def _summary(out: Path | None, report: dict[str, Any], as_json: bool) -> None:
    """Print the summary of an import without what is empty, and the next command."""
    if as_json:
        print_json(report)
    else:
        shown = {name: value for name, value in report.items() if value and not name.endswith("sha256")}
        table([(name.replace("_", " "), _short(value)) for name, value in shown.items()])
    if out is None:
        note("nothing was written")
    elif out == Path("data"):
        note(NEXT)
    else:
        note(f"{out}: the pipeline reads data/, not this folder: import with `--out data` to train on it")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        entries = [f"{name} {_short(inner)}" for name, inner in value.items()]
    elif isinstance(value, list):
        entries = [_short(inner) for inner in value]
    else:
        return f"{value:,}" if isinstance(value, int) else str(value)
    more = f", … {len(entries) - SHOWN} more" if entries[SHOWN:] else ""
    return ", ".join(entries[:SHOWN]) + more if entries else "none"
