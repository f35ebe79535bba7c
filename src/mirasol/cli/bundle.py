"""`mirasol bundle`: copies of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import Json, print_json

app = typer.Typer(no_args_is_help=True, help="Copy a bundle, without PyTorch.")
SHIPPED = Path("src/mirasol/try")


@app.callback()
def _group() -> None:
    """Keeps `slim` a subcommand while it is the only one."""


@app.command()
def slim(
    source: Annotated[Path, typer.Argument(help="the bundle to copy")] = Path("build/bundle"),
    out: Annotated[Path, typer.Option(help="the folder of the copy")] = SHIPPED,
    as_json: Json = False,
) -> None:
    """Copy a bundle with one opset and three sample clips, at most 6 MB: the one that `mirasol try` answers with.

    Example:  mirasol bundle slim build/bundle --out src/mirasol/try
    """
    from mirasol.export.slim import size_of
    from mirasol.export.slim import slim as run_slim
    from mirasol.runtime.samples import SAMPLES, read_samples

    contract = run_slim(source, out)
    samples = read_samples(out / SAMPLES)
    if as_json:
        print_json(
            {"out": str(out), "sha256": contract.sha256, "bytes": size_of(out), "samples": [vars(s) for s in samples]}
        )
        return
    for sample in samples:
        print(f"{sample.file}: {sample.question} {sample.answer} (right: {sample.expected})")
    print(f"{out}: {size_of(out) / 1e6:.1f} MB, sha256 {contract.sha256}")
