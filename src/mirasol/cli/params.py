"""`mirasol params`: check params.yaml, document its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import Json, note, print_json, print_paths, table, to_json

app = typer.Typer(no_args_is_help=True, help="Check params.yaml, document its keys.")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="the file to check")] = Path("params.yaml"),
    paper: Annotated[bool, typer.Option("--paper", help="compare with S 4 of the paper, key by key")] = False,
    as_json: Json = False,
) -> None:
    """Check a params file and print it resolved.

    Reports every problem at once: line, key, value and allowed values. In the resolved file each phase states all
    its keys, those of `phases` included. Warns if training is too large for this machine. With --paper, and for the
    model of the paper (`base`), what S 4 says about training comes last, line by line, with the keys that hold it.

    Example:  mirasol params check recipes/drone.yaml
    """
    import dataclasses
    import sys

    from ruamel.yaml import YAML

    from mirasol.pipeline.fits import fits
    from mirasol.pipeline.launch.config import load_cluster
    from mirasol.pipeline.params.load import read_params
    from mirasol.pipeline.params.paper import compare

    found = read_params(file)
    resolved = dataclasses.asdict(found.params)
    rows = compare(found) if paper or found.params.model.preset == "base" else []
    if as_json:
        print_json({"paper": [dataclasses.asdict(row) for row in rows]} if paper else resolved)
    else:
        YAML().dump(resolved, sys.stdout)
        sys.stdout.flush()
    if rows and not as_json:
        print("\nS 4 of the paper, and what differs:")
        lines = [(row.part, row.says, row.key, row.value, row.paper and f"the paper: {row.paper}") for row in rows]
        table([("part", "S 4", "key", "value", ""), *lines])
    note(f"{file}: {sum(map(len, resolved.values()))} values in {len(resolved)} sections, all valid")
    project = file.parent if (file.parent / "params.yaml").exists() else Path()  # recipes lie elsewhere
    if warning := fits(found.params, load_cluster(project)):
        note(warning)


@app.command()
def docs(
    out: Annotated[Path, typer.Option(help="the page to write; its .schema.json goes next to it")] = Path(
        "docs/params.md"
    ),
    as_json: Json = False,
) -> None:
    """Write the page of all keys and the JSON Schema for editors.

    Example:  mirasol params docs
    """
    from mirasol.core.files import atomic_write
    from mirasol.pipeline.params.docs import json_schema, render

    pages = {out: render(), out.with_suffix(".schema.json"): to_json(json_schema()) + "\n"}
    for path, text in pages.items():
        with atomic_write(path, "w") as file:
            file.write(text)
    print_paths(list(pages), as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of params files, for editors.

    Example:  mirasol params schema
    """
    from mirasol.pipeline.params.docs import json_schema

    print_json(json_schema())
