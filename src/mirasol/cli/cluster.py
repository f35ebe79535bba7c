"""`mirasol cluster`: where training runs."""

from __future__ import annotations

from typing import Annotated

import typer

from mirasol.cli.console import Json, painted, print_json

app = typer.Typer(no_args_is_help=True, help="Where training runs: cluster.yaml.")


@app.command()
def check(
    wait: Annotated[float, typer.Option(min=0, help="seconds for free nodes, to see the shared folder from them")] = 20,
    as_json: Json = False,
) -> None:
    """Check cluster.yaml and say what it means for each phase.

    With `launcher: slurm` also: Slurm's commands, the partition, and whether the nodes see this folder. Exits with 1
    if something is missing.

    Example:  mirasol cluster check
    """
    import dataclasses

    from mirasol.pipeline.launch.check import examine
    from mirasol.pipeline.launch.config import load_cluster

    cluster = load_cluster()
    found = list(examine(cluster, wait))
    if as_json:
        print_json(dataclasses.asdict(cluster) | {"findings": [dataclasses.asdict(finding) for finding in found]})
    else:
        for finding in found:
            state = painted(f"{'ok' if finding.ok else 'wrong':<8}", "green" if finding.ok else "red")
            print(f"{state}{finding.subject:<14}{finding.text}")
    raise typer.Exit(0 if all(finding.ok for finding in found) else 1)
