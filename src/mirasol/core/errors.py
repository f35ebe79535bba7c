"""The one kind of error that a user is meant to read, and texts that errors share."""

from __future__ import annotations


class MirasolError(Exception):
    """An error that the user can fix: bad input, a missing file, a full disk.

    The message says which thing is wrong and where (file, line, key, clip), the expected value and the remedy. The
    command line prints it without a traceback and exits with status 2; a stage also records it in
    ``runs/<stage>/error.json``.
    """


DISTRIBUTION = "mirasol-av"  # PyPI's `mirasol` is another project
# `make setup` brings all extras but these: alternatives of other packages, services, and tools of the documentation.
NOT_IN_SETUP = ("runtime-gpu", "tensorrt", "dvclive", "wandb", "mlflow", "docs")


def install(extra: str) -> str:
    """The command that installs the packages of an extra, wherever mirasol itself was installed from."""
    pip = f"`pip install '{DISTRIBUTION}[{extra}]'`"
    return pip if extra in NOT_IN_SETUP else f"{pip}, or `make setup` in the project's folder"


def listing(title: str, lines: list[str], shown: int = 50) -> str:
    """``title`` and the first ``shown`` of ``lines`` under it, with the number of those left out."""
    more = [f"... and {len(lines) - shown} more"] if len(lines) > shown else []
    return "\n  ".join([f"{title}:", *lines[:shown], *more])
