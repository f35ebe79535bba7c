"""The command line `mirasol`: the commands of this package's modules under one name, and their errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli import (
    bench,
    bundle,
    cluster,
    completion,
    console,
    data,
    doctor,
    evaluate,
    label,
    model,
    params,
    pipeline,
    predict,
    releases,
    serve,
    tryout,
    weights,
)

EPILOG = "Start here:  mirasol try  |  make demo  |  mirasol doctor  |  mirasol answer FILE 'what sound is heard?'"

app = typer.Typer(
    name="mirasol",
    rich_markup_mode="markdown",
    help="Train audio-video-text models on your own videos, and stream answers from them.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (pipeline, evaluate, serve, tryout, predict, label, doctor, completion):
    app.add_typer(module.app)
for name, module in {
    "bundle": bundle,
    "data": data,
    "params": params,
    "cluster": cluster,
    "model": model,
    "weights": weights,
    "releases": releases,
    "bench": bench,
}.items():
    app.add_typer(module.app, name=name)


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


def main(command: typer.Typer = app, name: str = "mirasol") -> None:
    """The entry point: an error that the user can fix is one red text on stderr and exit status 2."""
    from mirasol.core.errors import MirasolError, install
    from mirasol.core.files import disk_error

    # OpenMP reads it when torch is imported. Threads that spin while they wait halve the speed of training as soon as
    # another process needs a core, the pipeline's own server included.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        command(prog_name=name)
    except MirasolError as error:
        console.error(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "mirasol", "flows"):
            raise
        console.error(f"this needs the package {package}: run {install(doctor.extra_of(package))}")
    except OSError as error:
        known = disk_error(error, Path(error.filename or "."))
        if known is None:
            raise
        console.error(str(known))
    sys.exit(2)
