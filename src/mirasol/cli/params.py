"""`mirasol params`: check params.yaml, write docs/params.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Check params.yaml, document its keys.")


@app.command()
def check(
    file: Annotated[Path, typer.Option(help="the file to check")] = Path("params.yaml"),
) -> None:
    """Report every problem of a params file at once: line, key, what was got, what is allowed.

    Example:  mirasol params check --file recipes/drone.yaml
    """
    from mirasol.pipeline.params.load import load_params
    from mirasol.pipeline.params.schema import keys, sections

    load_params(file)
    kinds = [kind for kind, _ in sections().values()]
    print(f"{file}: {sum(len(keys(kind)) for kind in kinds)} keys in {len(kinds)} sections, all valid")


@app.command()
def docs(
    out: Annotated[Path, typer.Option(help="where to write the page")] = Path("docs/params.md"),
) -> None:
    """Write the page that says what each key means and may be, from the schema."""
    from mirasol.core.files import atomic_write
    from mirasol.pipeline.params.docs import render

    with atomic_write(out, "w") as file:
        file.write(render())
    print(out)
