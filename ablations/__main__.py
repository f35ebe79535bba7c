"""`mirasol ablate`, or `python -m ablations`: the paper's ablations at laptop scale."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from ablations.tables import NO_PAPER, Cell, Grid, Table, cells_of, read_tables
from mirasol.cli.console import note, table
from mirasol.cli.main import main
from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.data.conditions import Condition
from mirasol.pipeline.params.errors import nearest

REPORTS = Path("reports", "ablations")
ALL, MODALITIES = "all", "matters"

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def ablate(
    table: Annotated[str, typer.Argument(help="a table of the paper as --list names it, `matters`, or `all`")] = "all",
    seeds: Annotated[int, typer.Option(min=3, help="models of a cell: seeds 1, 2, 3, …")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="cells at a time, one core each")] = 2,
    list_: Annotated[bool, typer.Option("--list", help="name the tables, run nothing")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the grid and how long it will take")] = False,
) -> None:
    """Re-run the paper's ablations at laptop scale: small models on the hard world, hours in all.

    Each row of a table is a cell: a change to recipes/ablations.yaml (ablations/tables.yaml says which), trained from
    scratch with several seeds and asked the same test questions. Cells are DVC experiments: `dvc exp show` in
    runs/workspaces/ablations lists them. Stop it whenever you like: finished cells stay, and the next call goes on.
    reports/ablations/TABLE.json and TABLE.svg have scores, 95 % intervals over seeds and clips, and whether each row
    differs as it does in the paper. `matters` takes sound, picture and the order of chunks away instead.

    Example:  mirasol ablate 5b --dry-run
    """
    if list_:
        show_list()
    else:
        run(table, seeds, jobs, dry_run)


def show_list() -> None:
    """Print the tables."""
    grid = read_tables()
    rows: list[tuple[str, ...]] = [("table", "paper", "rows", "what")]
    rows += [(t.name, t.source, str(len(t.rows)), t.title) for t in grid.tables.values()]
    rows.append((MODALITIES, NO_PAPER, "", "sound, picture and time taken away from the recipe's model"))
    table(rows, right=(2,))


def run(name: str, seeds: int, jobs: int, dry: bool) -> None:
    """Run the cells of table ``name`` that have not run yet, then write its report; ``all`` for every table."""
    grid = read_tables()
    known = (*grid.tables, MODALITIES, ALL)
    if name not in known:
        guess = nearest(name, known)
        raise MirasolError(f"no table {name!r}: " + (f"did you mean {guess}?" if guess else f"one of {known}"))
    tables = list(grid.tables.values()) if name == ALL else [grid.tables[name]] if name in grid.tables else []
    base = [Cell((), seed) for seed in range(1, seeds + 1)]
    cells = list(dict.fromkeys([*(base if name in (ALL, MODALITIES) else ()), *cells_of(tables, seeds)]))
    if dry:
        _show_grid(tables, cells, grid, seeds, jobs)
        return
    from ablations.run import run_cells

    home = run_cells(Path().resolve(), cells, grid, jobs, note)
    counted: Counter[str] = Counter()
    for one in tables:
        found = _report(one, seeds, jobs, home)
        if one.source != NO_PAPER:
            counted.update(row["against"]["verdict"] for row in found if "against" in row)
    if counted:
        print("Rows of the paper: " + ", ".join(f"{n} {verdict}" for verdict, n in counted.most_common()))
    if name in (ALL, MODALITIES):
        _report_modalities(base, seeds, jobs, home)


def _show_grid(tables: list[Table], cells: list[Cell], grid: Grid, seeds: int, jobs: int) -> None:
    from ablations.run import HOME, finished, seconds_each

    reports = [finished(HOME, cell) for cell in cells]
    done = [report for report in reports if report is not None]
    rows: list[tuple[str, ...]] = [("table", "row", "cells", "changes")]
    for one in tables:
        for row in one.rows:
            changes = " ".join(f"{key}={value}" for key, value in row.changes) or "the recipe"
            rows.append((one.name, row.name, row.cells(1)[0].name.removesuffix("-s1"), changes))
    table(rows)
    each = seconds_each(done, grid) / 60
    left = len(cells) - len(done)
    print(f"\n{len(cells)} cells of {seeds} seeds, {len(done)} of them finished; {left} to run, {jobs} at a time:")
    print(f"about {left * each / jobs:.0f} minutes at {each:.1f} a cell")


def _about(seeds: int, jobs: int, home: Path) -> dict[str, Any]:
    from mirasol.pipeline.dvc.command import git

    families = json.loads((home / "data" / "families.json").read_text(encoding="utf-8"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {
        "project_commit": git(home, "rev-parse", "refs/mirasol/base"),
        "command": "mirasol ablate " + shlex.join(sys.argv[1:]),
        "machine": machine,
        "seeds": seeds,
        "jobs": jobs,
        "families": families,
    }


def _report(one: Table, seeds: int, jobs: int, home: Path) -> list[dict[str, Any]]:
    from ablations.compare import compare, draw, lines
    from ablations.run import CELLS

    about = _about(seeds, jobs, home)
    rows = compare(one, seeds, home / CELLS, about.pop("families"))
    head = {"table": one.name, "title": one.title, "source": one.source, "note": one.note}
    write_json(REPORTS / f"{one.name}.json", head | about | {"rows": rows})
    draw(one, rows, REPORTS / f"{one.name}.svg")
    lines(one, rows, print)
    return rows


def _report_modalities(cells: list[Cell], seeds: int, jobs: int, home: Path) -> None:
    from ablations.compare import CHECKED, modality_ablation
    from ablations.run import CELLS

    about = _about(seeds, jobs, home)
    found = modality_ablation(cells, home / CELLS, about.pop("families"))
    write_json(REPORTS / f"{MODALITIES}.json", about | {"families": found})
    rows: list[tuple[str, ...]] = [("family", Condition.unchanged, *CHECKED)]
    for family, entry in found.items():
        words = {True: "as it must", False: "NOT as it must", None: "not judged"}
        judged = (f"{entry[c]['mean']:.1f} {words[entry[c]['holds']]}" for c in CHECKED)
        rows.append((family, f"{entry[Condition.unchanged]['mean']:.1f}", *judged))
    table(rows)


if __name__ == "__main__":
    main(app, "mirasol ablate")
