"""`mirasol try`: a bundle answers about sample clips, streams one, and shows its page."""

from __future__ import annotations

import os
import shlex
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirasol.cli.console import note, table
from mirasol.core.errors import MirasolError, install

if TYPE_CHECKING:
    from mirasol.runtime.contract import Contract
    from mirasol.runtime.engine import Engine
    from mirasol.runtime.samples import Sample

app = typer.Typer()
MADE = Path("build/bundle")  # by the demo, in the project's folder
PORT = 8000
EVERY = 0.5  # seconds of stream time


def shipped() -> Path:
    """The folder of the small bundle that is part of this package; relative if it is below the current one."""
    folder = Path(str(resources.files("mirasol") / "try"))
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


@app.command("try")
def try_out(
    bundle: Annotated[
        Path | None, typer.Option(help="default: build/bundle if the demo made it, else the one that is shipped")
    ] = None,
    page: Annotated[bool, typer.Option(help="then serve the page until Ctrl-C; off where CI is set")] = True,
) -> None:
    """Answer about three sample clips, stream one of them, and open the page, without PyTorch.

    Example:  mirasol try
    """
    from mirasol.pipeline.outcome import program
    from mirasol.runtime.model import load
    from mirasol.runtime.samples import SAMPLES, read_samples

    folder = shipped() / SAMPLES
    samples = read_samples(folder)
    bundle = bundle or _chosen(samples)
    model = load(bundle, provider="cpu")
    note(f"bundle: {bundle}")
    rows: list[tuple[str, ...]] = [("clip", "question", "answer", "right", "ms")]
    for one in samples:
        began = time.perf_counter()
        answer = model.answer(folder / one.file, one.question)
        rows.append((one.file, one.question, str(answer), one.expected, f"{1e3 * (time.perf_counter() - began):.0f}"))
    table(rows, right=(4,))
    last = samples[-1]
    print(f"\n{last.file} as a stream: {last.question}")
    for moment in model.stream(folder / last.file, last.question, EVERY, wait=False):
        print(f"  after {moment.seconds:.1f} s: {moment}")
    words = ["answer", str(folder / last.file), last.question, "--bundle", str(bundle)]
    note(f"\nask about a file:  {program()} {shlex.join(words)}")
    if page and not os.environ.get("CI"):
        _serve(model.engine, folder)


def _chosen(samples: list[Sample]) -> Path:
    """The demo's bundle if it was trained on the world of the sample clips, else the shipped one."""
    from mirasol.runtime.contract import CONTRACT_FILE, read_contract

    if (MADE / CONTRACT_FILE).is_file():
        if fits(read_contract(MADE), read_contract(shipped()), samples):
            return MADE
        note(f"{MADE} was trained on other data than the sample clips: the shipped bundle answers")
    return shipped()


def fits(made: Contract, small: Contract, samples: list[Sample]) -> bool:
    """Whether the bundle ``made`` learnt the questions about the sample clips, or the data of the bundle ``small``."""
    if made.prompts:
        return {sample.question for sample in samples} <= set(made.prompts)
    return made.provenance.data is not None and made.provenance.data == small.provenance.data


def _serve(engine: Engine, samples: Path) -> None:
    try:
        from mirasol.serve.run import serve
    except ModuleNotFoundError:
        note(f"the page needs more packages: run {install('serve')}")
        return

    def say(text: str) -> None:
        note(f"the page: {text}  (Ctrl-C ends it)" if text.startswith("http") else text)

    try:
        serve(lambda: engine, port=PORT, samples=samples, say=say)
    except MirasolError:  # the port is taken
        serve(lambda: engine, port=0, samples=samples, say=say)
