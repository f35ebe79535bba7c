"""`mirasol releases`: released models, and which of them is current."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol.cli.console import Json, note, print_json, table

if TYPE_CHECKING:
    from mirasol.runtime.releases import Release

app = typer.Typer(no_args_is_help=True, help="List released models, choose the current one, go back.")
Folder = Annotated[
    Path | None, typer.Option("--releases", help="the registry; default: MIRASOL_RELEASES, else runs/releases")
]


@app.command("list")
def list_(folder: Folder = None, as_json: Json = False) -> None:
    """List the releases with commit, result and date; the current one has a star.

    `python -m flows.release` makes one. Other commands take it as --bundle release:NAME.

    Example:  mirasol releases list
    """
    from mirasol.runtime.releases import Registry

    registry = Registry(folder)
    current, found = registry.current(), registry.releases()
    if as_json:
        print_json([_facts(release, current) for release in found])
        return
    if not found:
        note(f"{registry.folder}: no release yet: make one with `python -m flows.release`")
        return
    rows = [("", "name", "commit", "result", "date")]
    for release in found:
        result = "" if release.result is None else f"{release.result:.4g}"
        star = "*" if current and release.name == current.name else ""
        rows.append((star, release.name, release.commit[:12], result, release.date))
    table(rows, right=(3,))


@app.command()
def current(folder: Folder = None, as_json: Json = False) -> None:
    """Print the name of the current release, that of `release:current`.

    Example:  mirasol releases current
    """
    from mirasol.runtime.releases import CURRENT, Registry

    _print(Registry(folder).get(CURRENT), as_json)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="of a release, such as model-3")],
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Make a release current, after a check of its bundle.

    A service of `release:current` takes it over for new sessions.

    Example:  mirasol releases promote model-3
    """
    from mirasol.runtime.releases import Registry

    _print(Registry(folder).promote(name), as_json)


@app.command()
def rollback(folder: Folder = None, as_json: Json = False) -> None:
    """Make the release current that was so before; prints its name.

    A service of `release:current` takes it over for new sessions.

    Example:  mirasol releases rollback
    """
    from mirasol.runtime.releases import Registry

    _print(Registry(folder).rollback(), as_json)


def _print(release: Release, as_json: bool) -> None:
    if as_json:
        print_json(_facts(release, release))
    else:
        print(release.name)


def _facts(release: Release, current: Release | None) -> dict[str, Any]:
    facts = dataclasses.asdict(release) | {"folder": str(release.folder), "result": release.result}
    return facts | {"current": current is not None and release.name == current.name}
