"""The one kind of error that a user is meant to read, and texts that errors share."""

from __future__ import annotations


class MirasolError(Exception):
    """An error that the user can fix: bad input, a missing file, a full disk.

    The message says which thing is wrong and where (file, line, key, clip), the expected value and the remedy. The
    command line prints it without a traceback and exits with status 2; a stage also records it in
    ``runs/<stage>/error.json``.
    """


def install(extra: str) -> str:
    """How to install the packages of an extra. PyPI's `mirasol` is another project."""
    return f"`make setup`, or `pip install -e '.[{extra}]'`, in the project's folder"


def listing(title: str, lines: list[str], shown: int = 50) -> str:
    """``title`` and the first ``shown`` of ``lines`` under it, with the number of those left out."""
    more = [f"... and {len(lines) - shown} more"] if len(lines) > shown else []
    return "\n  ".join([f"{title}:", *lines[:shown], *more])
