"""`mirasol world`, `stage`, `run`, `ablate`, `workspace` and `report`: data in, models and their report out."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import Json, note, print_json, print_paths, takes, to_json
from mirasol.core.machine import cores

app = typer.Typer()
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def world(
    out: Annotated[Path, typer.Option(help="the folder to make")] = Path("data"),
    clips: Annotated[
        int | None, typer.Option(min=1, help="clips of the training split: 12,000, 16,000 if hard")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = cores(),
    hard: Annotated[bool, typer.Option("--hard", help="the variant that `mirasol ablate` trains on")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace what is in the folder")] = False,
    as_json: Json = False,
) -> None:
    """Make the built-in world: video files with sound, questions and exact answers.

    Example:  mirasol world --out data
    """
    from mirasol.data.world.make import make_world

    report = make_world(out, clips, seed, workers, force=force, variant="hard" if hard else "demo")
    if as_json:
        print_json(report)
        return
    made = " + ".join(f"{count:,} {split}" for split, count in report["clips"].items())
    state = "written" if report["written"] else "already existed"
    print(f"{out}: {made} clips, {report['examples']:,} texts, {report['bytes'] / 2**20:.0f} MiB, {state}")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="a stage of dvc.yaml, such as `shards` or `finetune`")],
    resume_anyway: Annotated[
        bool, typer.Option("--resume-anyway", help="go on from a checkpoint of other settings, code or data")
    ] = False,
    start_anew: Annotated[
        bool, typer.Option("--start-anew", help="set such a checkpoint aside and begin at step 0")
    ] = False,
) -> None:
    """Run one stage of dvc.yaml in this folder; a training phase where cluster.yaml says.

    DVC calls this; `dvc repro` decides when.

    Example:  mirasol stage shards
    """
    from mirasol.core.errors import MirasolError
    from mirasol.pipeline.launch.driver import run
    from mirasol.pipeline.params.checks import PHASES
    from mirasol.training.config import ANSWER, RESUME, START

    if resume_anyway and start_anew:
        raise MirasolError("--resume-anyway and --start-anew exclude each other: choose one")
    if (resume_anyway or start_anew) and name not in PHASES:
        raise MirasolError(f"{name} has no checkpoint: --resume-anyway and --start-anew are for {', '.join(PHASES)}")
    if resume_anyway or start_anew:
        os.environ[ANSWER] = RESUME if resume_anyway else START  # for all processes of the stage
    run(name)


@app.command(add_help_option=False, context_settings=PASS_ON)
def run(context: typer.Context) -> None:
    """Bring the pipeline up to date through Prefect, as `make demo` does after the set-up.

    Example:  mirasol run evaluate
    """
    _run_module("flows.pipeline", context.args)


@app.command(add_help_option=False, context_settings=PASS_ON)
def ablate(context: typer.Context) -> None:
    """Re-run the paper's ablations at laptop scale: small models on the hard world, hours in all.

    Example:  mirasol ablate 5b --dry-run
    """
    _run_module("ablations", context.args)


def _run_module(name: str, arguments: list[str]) -> None:
    """Continue as `python -m NAME`, a module of the project's folder; signals reach it directly."""
    from mirasol.core.errors import MirasolError

    folder = name.partition(".")[0]
    if not Path(folder, "__init__.py").is_file():
        raise MirasolError(f"{folder}/ is not here: run in the project's folder (the one with params.yaml)")
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])


Params = Annotated[
    Path | None, typer.Option(help="a params file, such as recipes/*.yaml; default: proposed for the data, or as here")
]
Adapter = Annotated[str, typer.Option(help="how the data are read: any NAME of `mirasol data import`")]
AnnotationFile = Annotated[
    Path | None, typer.Option(help="file or folder of annotations, if not with the media (annotations.csv or .jsonl)")
]
Start = Annotated[
    Path | None, typer.Option("--from", help="weights to start from: their folder, a project, or its bundle")
]
Unlabelled = Annotated[
    Path | None, typer.Option(help="a folder of more media, without annotations: pretrain learns from them")
]
Options = Annotated[list[str] | None, typer.Argument(help="behind `--`: further options of the import")]


@dataclass(frozen=True)
class Train:
    """Arguments of `mirasol train`."""

    data: Annotated[Path, typer.Argument(help="a folder of media with annotations.csv or .jsonl")]
    options: Options = None
    name: Annotated[str, typer.Option(help="of the folder under runs/workspaces; default: that of the data")] = ""
    params: Params = None
    start: Start = None
    unlabelled: Unlabelled = None
    adapter: Adapter = "generic"
    annotations: AnnotationFile = None


@dataclass(frozen=True)
class Workspace:
    """Arguments of `mirasol workspace`."""

    name: Annotated[str, typer.Argument(help="of the folder under runs/workspaces")]
    options: Options = None
    params: Params = None
    data: Annotated[Path | None, typer.Option(help="a folder of media for it")] = None
    start: Start = None
    unlabelled: Unlabelled = None
    adapter: Adapter = "generic"
    annotations: AnnotationFile = None
    as_json: Json = False


@app.command()
@takes(Train)
def train(given: Train) -> None:
    """Train on your own videos: a workspace with settings proposed for them, then the whole pipeline.

    Example:  mirasol train ~/videos --from build/finetune
    """
    folder = _workspace(given.name or given.data.expanduser().resolve().name, given)
    _run_module("flows.pipeline", ["--workspace", str(folder)])


@app.command()
@takes(Workspace)
def workspace(given: Workspace) -> None:
    """Make a separate folder for other data or parameters: a clone that shares the cache; prints its path.

    Example:  mirasol workspace mine --data ~/videos && mirasol run --workspace runs/workspaces/mine

    Example:  mirasol workspace vgg --data ~/vgg/clips --annotations ~/vgg --adapter vggsound -- --skip-missing
    """
    folder = _workspace(given.name, given)
    if given.as_json:
        print_json({"workspace": str(folder)})
    else:
        print(folder)


def _workspace(name: str, given: Train | Workspace) -> Path:
    from mirasol.pipeline.params.load import load_params
    from mirasol.pipeline.workspace import Import, make_workspace

    if given.params is not None and given.params.expanduser().exists():
        load_params(given.params.expanduser())  # refuse a wrong file before anything is made
    data = Import(given.data, given.adapter, given.annotations, tuple(given.options or ()), given.unlabelled)
    return make_workspace(name, params=given.params, data=data, start=given.start, say=_note_import)


def _note_import(line: str) -> None:
    """A remark about a new workspace, which does itself what the import advises next."""
    from mirasol.cli.data import NEXT

    if line != NEXT:
        note(line)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="the folder of index.html")] = Path("build/report"),
    markdown: Annotated[bool, typer.Option("--markdown", help="print the figures, write no page")] = False,
    as_json: Json = False,
) -> None:
    """Write the report: one HTML file with pictures, curves, scores and latencies.

    Example:  mirasol report && xdg-open build/report/index.html
    """
    from mirasol.evaluation.report import page

    if markdown:
        text = page.markdown(Path())
        print(to_json({"markdown": text}) + "\n" if as_json else text, end="")
    else:
        print_paths([page.write_report(Path(), out)], as_json)
