"""`mirasol label`: label clips in the browser, with a model's proposals."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import note, takes

app = typer.Typer()


class GroupBy(StrEnum):
    """How the files of one recording are found."""

    name = "name"
    folder = "folder"
    file = "file"


@dataclass(frozen=True)
class Labelling:
    """Options of `mirasol label`."""

    folder: Annotated[Path, typer.Argument(help="the clips, also in folders below it")]
    ask: Annotated[str, typer.Option(help="the question of all clips; empty: the classification prompt")] = ""
    answers: Annotated[str, typer.Option(help="choices, separated by commas; new ones may be typed on the page")] = ""
    bundle: Annotated[Path | None, typer.Option(help="a bundle whose model proposes answers")] = None
    out: Annotated[Path, typer.Option(help="the CSV to write, or to continue")] = Path("annotations.csv")
    group_by: Annotated[
        GroupBy | None,
        typer.Option(
            help="files of one recording, which share a split: name, without its last number (walk_007 is of walk); "
            "folder; file, each its own. Default: name if that makes five groups or more, else file"
        ),
    ] = None
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 0


@app.command()
@takes(Labelling)
def label(given: Labelling) -> None:
    """Label clips on a page of this machine, without PyTorch: play, accept or correct by key.

    With --bundle the model proposes, and unsure clips come first. Every label is on disk at once; the same command
    continues. The CSV goes to `mirasol data import generic`.

    Example:  mirasol label ~/clips --ask 'which sound is heard?' --answers bell,buzz,none --bundle build/bundle
    """
    from mirasol.data.manifest import CLASSIFY_PROMPT
    from mirasol.serve.annotations import RULES
    from mirasol.serve.label import serve_labels
    from mirasol.serve.labels import Labels

    question = given.ask or CLASSIFY_PROMPT
    answers = [answer.strip() for answer in given.answers.split(",") if answer.strip()]
    propose = None
    if given.bundle is not None:
        from mirasol.runtime.model import load
        from mirasol.serve import proposals

        model = load(given.bundle, threads=1)  # the browser needs the other cores
        model.engine.check_question(question)
        propose = partial(proposals.propose, model, question=question, answers=tuple(answers))
    labels = Labels(given.folder, given.out, question, answers=answers, propose=propose, group_by=given.group_by or "")
    state = labels.state()
    note(f"{state['total']} clips of {state['groups']} recordings ({RULES[labels.rule]}), {state['labelled']} labelled")
    try:
        serve_labels(labels, port=given.port, say=note)
    finally:
        labels.close()
    state = labels.state()
    note(f"{given.out}: {state['labelled']} labels")
    if state["labelled"]:
        out, folder = shlex.quote(str(given.out)), shlex.quote(str(given.folder))
        note(f"next, `mirasol data import generic --annotations {out} --media {folder} --out data`")
