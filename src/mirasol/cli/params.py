"""`mirasol params`: check params.yaml, document its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import Json, note, print_json, to_json

app = typer.Typer(no_args_is_help=True, help="Check params.yaml, document its keys.")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="the file to check")] = Path("params.yaml"), as_json: Json = False
) -> None:
    """Check a params file and print it resolved.

    Reports every problem at once: line, key, value and allowed values. In the resolved file each phase states all
    its keys, those of `phases` included. Warns if training is too large for this machine.

    Example:  mirasol params check recipes/drone.yaml
    """
    import dataclasses
    import sys

    from ruamel.yaml import YAML

    from mirasol.pipeline.fits import fits
    from mirasol.pipeline.params.load import load_params

    params = load_params(file)
    resolved = dataclasses.asdict(params)
    if as_json:
        print_json(resolved)
    else:
        YAML().dump(resolved, sys.stdout)
        sys.stdout.flush()
    note(f"{file}: {sum(map(len, resolved.values()))} values in {len(resolved)} sections, all valid")
    if warning := fits(params):
        note(warning)


@app.command()
def docs(
    out: Annotated[Path, typer.Option(help="the page to write; its .schema.json goes next to it")] = Path(
        "docs/params.md"
    ),
) -> None:
    """Write the page of all keys and the JSON Schema for editors.

    Example:  mirasol params docs
    """
    from mirasol.core.files import atomic_write
    from mirasol.pipeline.params.docs import json_schema, render

    for path, text in ((out, render()), (out.with_suffix(".schema.json"), to_json(json_schema()) + "\n")):
        with atomic_write(path, "w") as file:
            file.write(text)
        print(path)


@app.command()
def schema() -> None:
    """Print the JSON Schema of params files, for editors.

    Example:  mirasol params schema
    """
    from mirasol.pipeline.params.docs import json_schema

    print_json(json_schema())
