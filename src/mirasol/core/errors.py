"""The one kind of error that a user is meant to read, and texts that errors share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Texts of gloo and NCCL for a process that is gone or late.
_GONE = re.compile(
    r"Connection (reset|closed|refused)|Broken pipe|Timed out waiting|(Application|operation|Socket) [Tt]imeout|gloo/|"
    r"NCCL|remote process exited|communicator was aborted"
)


class MirasolError(Exception):
    """An error that the user can fix: bad input, a missing file, a full disk.

    The message says which thing is wrong and where (file, line, key, clip), the expected value and the remedy. The
    command line prints it without a traceback and exits with status 2; a stage also records it in
    ``runs/<stage>/error.json``.
    """


class PeerError(MirasolError):
    """Another process of the run failed, stopped or vanished, as a process that waited for it reports.

    Attributes:
        causes: the errors that other processes told, each as in ``errors/rank-N.json``.
        transient: none of them is the user's: worth another try.
    """

    def __init__(self, message: str, causes: Iterable[dict[str, Any]] = (), *, transient: bool) -> None:
        super().__init__(message)
        self.causes, self.transient = list(causes), transient


def is_secondary(error: BaseException) -> bool:
    """Whether an error of one process of several says only that another is gone or late."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"PeerError", "ConnectionError", "DistError"}:
        return True
    return isinstance(error, RuntimeError) and _GONE.search(str(error)) is not None


def text_of(error: BaseException) -> str:
    """One text for an error: its own if the user can fix it, else with its type."""
    return str(error) if isinstance(error, MirasolError) else f"{type(error).__name__}: {error}"


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
