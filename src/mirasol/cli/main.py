"""The command line: `mirasol …`. Every command is one call of a room below."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli import bench, data, model, params, weights
from mirasol.cli import console as say

Bundle = Annotated[Path, typer.Option(help="the folder that the export stage wrote")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads, 0: the engine decides")]
Provider = Annotated[
    str,
    typer.Option(
        help="who computes: cpu; on an NVIDIA GPU cuda, tensorrt, tensorrt-native; auto: cuda if it is there, else cpu"
    ),
]
BUNDLE, FINETUNE = Path("build/bundle"), Path("build/finetune")
WordNet = Annotated[Path, typer.Option(help="folder of WordNet's database files, for nextqa-oe")]
WORDNET = Path("/usr/share/wordnet")  # of Debian's wordnet-base
SERVICE = ("fastapi", "pydantic", "starlette", "uvicorn", "websockets", "prometheus_client")
PROTOCOLS = (
    "msrvtt-qa, msvd-qa, activitynet-qa, nextqa-mc, nextqa-oe, vggsound, epic-sounds, kinetics-sounds, generic "
    "(your own questions) or world"
)
EPILOG = "Start here:  make demo  |  mirasol doctor  |  mirasol answer FILE 'what sound is heard?'"

app = typer.Typer(
    name="mirasol",
    help="Train audio-video-text models on your own videos, and stream answers from them.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(params.app, name="params")
app.add_typer(model.app, name="model")
app.add_typer(weights.app, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
        from mirasol import __version__

        print(f"mirasol {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Options of `mirasol` itself."""


@app.command()
def world(
    out: Annotated[Path, typer.Option(help="the folder to make")] = Path("data"),
    clips: Annotated[
        int | None, typer.Option(min=1, help="clips of the training split: 12,000, 16,000 if hard")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = os.cpu_count() or 1,
    hard: Annotated[bool, typer.Option("--hard", help="the variant that `mirasol ablate` trains on")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace what is in the folder")] = False,
) -> None:
    """Make the built-in world: video files with sound, questions and exact answers.

    Example:  mirasol world --out data
    """
    from mirasol.data.world.make import make_world

    report = make_world(out, clips, seed, workers, force=force, variant="hard" if hard else "demo")
    made = " + ".join(f"{count:,} {split}" for split, count in report["clips"].items())
    state = "written" if report["written"] else "stood there already"
    print(f"{out}: {made} clips, {report['examples']:,} texts, {report['bytes'] / 2**20:.0f} MiB, {state}")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="a stage of dvc.yaml, such as `shards` or `finetune`")],
) -> None:
    """Run one stage of dvc.yaml in this folder; DVC calls this, `dvc repro` decides when.

    Example:  mirasol stage shards
    """
    from mirasol.pipeline.run_stage import run_stage

    run_stage(name)


@app.command()
def run(
    stages: Annotated[list[str] | None, typer.Argument(help="stages to bring up to date, all if none is named")] = None,
    push: Annotated[bool, typer.Option("--push", help="send the results to the DVC remote afterwards")] = False,
    workspace: Annotated[Path, typer.Option(help="the project's folder, or one of `mirasol workspace`")] = Path(),
) -> None:
    """Bring the pipeline up to date through Prefect: what `make demo` does after the set-up.

    Example:  mirasol run evaluate
    """
    _run_module("flows.pipeline", [*(stages or ()), "--workspace", str(workspace), *(["--push"] if push else ())])


def _run_module(name: str, arguments: list[str]) -> None:
    """Continue as `python -m NAME`, a module of the project's folder; signals reach it directly."""
    from mirasol.core.errors import MirasolError

    folder = name.partition(".")[0]
    if not Path(folder, "__init__.py").is_file():
        raise MirasolError(f"{folder}/ is not here: run in the project's folder (the one with params.yaml)")
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])


@app.command()
def evaluate(
    benchmark: Annotated[str, typer.Argument(help=f"of the questions in data: {PROTOCOLS}")] = "world",
    split: Annotated[str | None, typer.Option(help="default: val of the world, else the one that is published")] = None,
    weights: Annotated[Path, typer.Option(help="folder of a trained model")] = FINETUNE,
    data: Annotated[Path, typer.Option(help="the data folder that build/shards were made from")] = Path("data"),
    out: Annotated[Path, typer.Option(help="folder for scores.json and predictions.jsonl")] = Path("runs/scores"),
    wordnet: WordNet = WORDNET,
) -> None:
    """Answer and score a benchmark with any weights, outside the pipeline; reports/eval.json stays as it is.

    First bring the questions with `mirasol data import BENCHMARK` and pack them with `mirasol stage shards`.
    docs/evaluation.md says how each benchmark is scored.

    Example:  mirasol evaluate msrvtt-qa --weights build/finetune
    """
    from mirasol.cli.evaluate import evaluate as run_evaluate

    run_evaluate(benchmark, split, weights, data, out, wordnet)


@app.command()
def score(
    benchmark: Annotated[str, typer.Argument(help=PROTOCOLS)],
    predictions: Annotated[Path, typer.Argument(help='lines of JSON: {"id": …, "predicted": …}')],
    annotations: Annotated[Path | None, typer.Option(help="folder with the set's own files: all is asked")] = None,
    data: Annotated[Path | None, typer.Option(help="or a data folder: its manifest is asked; default data")] = None,
    split: Annotated[str | None, typer.Option(help="default: the one that figures are published for")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for scores.json and the scored lines")] = None,
    missing_wrong: Annotated[
        bool, typer.Option("--missing-wrong", help="questions without a line count wrong, instead of an error")
    ] = False,
    wordnet: WordNet = WORDNET,
) -> None:
    """Score anybody's predictions by a benchmark's protocol, without a model and without PyTorch.

    A line is like {"id": "msvd-37348", "predicted": "someone"}, with null where the video could not be read; ids are
    those of `mirasol data import`. docs/evaluation.md lists them, and says how each benchmark is scored.

    Example:  mirasol score msvd-qa predictions.jsonl --annotations ~/msvd-qa
    """
    from mirasol.cli.evaluate import score as run_score

    run_score(benchmark, predictions, annotations, data, split, wordnet, missing_wrong, out)


@app.command()
def compare(
    files: Annotated[list[Path], typer.Argument(help="scored predictions: A, then B, and more; or folders of them")],
    runs: Annotated[int, typer.Option(min=1, help="files in a row that are one recipe with different seeds")] = 1,
    out: Annotated[Path | None, typer.Option(help="a .json file for the figures")] = None,
) -> None:
    """Compare models on the same questions, paired: the difference from the first, its interval and its p-value.

    Folders hold a file for each benchmark. p (Holm) is adjusted for all comparisons made at once.

    Example:  mirasol compare runs/a/predictions.jsonl runs/b/predictions.jsonl
    """
    from mirasol.cli.evaluate import compare as run_compare

    run_compare(files, runs, out)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ablate(context: typer.Context) -> None:
    """Re-run the paper's ablations at laptop scale: small models on the hard world, hours in all."""
    _run_module("ablations", context.args)


@app.command()
def explain(
    clip: Annotated[str, typer.Argument(help="a media file, or the key of a clip in build/shards")],
    question: Annotated[str, typer.Argument(help="in the words of the training questions")],
    weights: Annotated[Path, typer.Option(help="folder of a trained model")] = FINETUNE,
    out: Annotated[Path, typer.Option(help="the picture: .png, or .html with its numbers")] = Path("explain.png"),
) -> None:
    """Draw where the model looked: for each token of its answer the chunks, the frames and the sound.

    Dark bars are attention over chunks. Beside them stand the picture and the sound of the strongest chunk, orange
    where they raised the token. docs/evaluation.md says what exactly is shown, and what it does not prove.

    Example:  mirasol explain clip.mp4 'which sound is heard first?' --out looked.png
    """
    from mirasol.cli.explain import show

    show(clip, question, weights, out)


@app.command()
def answer(
    file: Annotated[Path, typer.Argument(help="a media file, or a folder of them in order")],
    question: Annotated[str, typer.Argument(help="in the words of the training questions")],
    bundle: Bundle = BUNDLE,
    threads: Threads = 0,
    provider: Provider = "auto",
) -> None:
    """Answer a question about a video, without PyTorch.

    Example:  mirasol answer clip.mp4 'which sound is heard first?'
    """
    from mirasol.runtime.answer import answer as run_answer

    print(run_answer(file, question, bundle, threads=threads, provider=provider))


@app.command()
def stream(
    source: Annotated[
        str, typer.Argument(help="a media file, a folder of them, synthetic, a camera (/dev/video0), or rtsp://…")
    ],
    ask: Annotated[str, typer.Option(help="the question, asked again and again")],
    every: Annotated[str, typer.Option(help="time of the stream between two answers, like 2s or 500ms")] = "2s",
    fast: Annotated[bool, typer.Option("--fast", help="as fast as it goes, instead of at the source's speed")] = False,
    bundle: Bundle = BUNDLE,
    threads: Threads = 0,
    provider: Provider = "auto",
) -> None:
    """Stream a video chunk by chunk and answer while it runs, without PyTorch. Ctrl-C ends it.

    Example:  mirasol stream clip.mp4 --ask 'which sound is heard first?'

    Example:  mirasol stream rtsp://camera/live --ask 'what happens?' --every 5s
    """
    from mirasol.runtime.sources.camera import seconds_of
    from mirasol.runtime.stream import stream as run_stream

    try:
        seconds = seconds_of(every)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor ends it as Ctrl-C does
    run_stream(source, bundle, ask, seconds, wait=not fast, threads=threads, provider=provider)


@app.command()
def serve(
    bundle: Bundle = BUNDLE,
    host: Annotated[str, typer.Option(help="where to listen; by default no other machine can reach it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    sessions: Annotated[int, typer.Option(min=1, max=256, help="at once")] = 8,
    max_upload: Annotated[int, typer.Option(min=1, help="MiB of one file")] = 256,
    idle: Annotated[float, typer.Option(min=1, help="seconds until a session that nobody uses is ended")] = 120.0,
    threads: Threads = 0,
    provider: Provider = "auto",
) -> None:
    """Serve the model over HTTP and WebSockets, with a page to drop a video or open the camera on; without PyTorch.

    If the environment variable MIRASOL_TOKEN is set, clients must send it. docs/streaming.md describes the service.

    Example:  mirasol serve
    """
    from mirasol.cli.serve import serve as run_serve

    run_serve(bundle, host, port, sessions, max_upload, idle, threads, provider)


@app.command()
def workspace(
    name: Annotated[str, typer.Argument(help="of the folder under runs/workspaces")],
    params: Annotated[Path | None, typer.Option(help="a params file for it, such as recipes/*.yaml")] = None,
    data: Annotated[Path | None, typer.Option(help="a folder of media for it")] = None,
    adapter: Annotated[str, typer.Option(help="how --data is read: any NAME of `mirasol data import`")] = "generic",
    annotations: Annotated[
        Path | None,
        typer.Option(help="file or folder of annotations, if not in --data (generic: annotations.csv or .jsonl)"),
    ] = None,
    options: Annotated[list[str] | None, typer.Argument(help="behind `--`: further options of the import")] = None,
) -> None:
    """Make a folder of its own for other data or parameters: a clone that shares the cache; prints its path.

    Example:  mirasol workspace mine --data ~/videos && mirasol run --workspace runs/workspaces/mine

    Example:  mirasol workspace vgg --data ~/vgg/clips --annotations ~/vgg --adapter vggsound -- --skip-missing
    """
    from mirasol.pipeline.workspace import make_workspace

    print(
        make_workspace(
            name,
            params=params,
            data=data,
            adapter=adapter,
            annotations=annotations,
            options=options or (),
            say=say.note,
        )
    )


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="the folder of index.html")] = Path("build/report"),
    markdown: Annotated[bool, typer.Option("--markdown", help="print the figures, write no page")] = False,
) -> None:
    """Write the report: one HTML file with pictures, curves, scores and latencies.

    Example:  mirasol report && xdg-open build/report/index.html
    """
    from mirasol.evaluation.report import page as room

    if markdown:
        print(room.markdown(Path()), end="")
    else:
        print(room.write_report(Path(), out))


@app.command()
def doctor() -> None:
    """Say what this machine has and lacks, with the command that mends each lack; exit 1 if something is missing."""
    from mirasol.cli.doctor import examine

    missing = 0
    for finding in examine():
        missing += finding.state == "missing"
        mend = f"\n{'':28}-> {finding.mend}" if finding.mend else ""
        print(f"{finding.state:<8}{finding.subject:<20}{finding.text}{mend}", flush=True)
    raise typer.Exit(1 if missing else 0)


def main(command: typer.Typer = app, name: str = "mirasol") -> None:
    """The entry point: errors that the user can mend are one red text on stderr and exit status 2."""
    from mirasol.core.errors import MirasolError
    from mirasol.core.files import disk_error

    # Read by OpenMP when torch is imported. Threads that spin while they wait halve the speed of training as soon as
    # anything else wants a core, the pipeline's own server included.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        command(prog_name=name)
    except MirasolError as error:
        say.error(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "mirasol", "flows"):
            raise
        extra = {"onnxruntime": "runtime", "prefect": "flows", **dict.fromkeys(SERVICE, "serve")}.get(package, "train")
        say.error(f"this needs the package {package}: `make setup`, or `pip install 'mirasol[{extra}]'`")
    except OSError as error:
        mendable = disk_error(error, Path(error.filename or "."))
        if mendable is None:
            raise
        say.error(str(mendable))
    sys.exit(2)
