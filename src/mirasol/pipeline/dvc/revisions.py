"""Files of a workspace as they are, or as they were at a git revision."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.command import CommandError, git


def read_reports(root: str | Path, paths: Iterable[str], rev: str | None = None) -> dict[str, Any]:
    """Files of reports/, path -> content, without missing files.

    Args:
        rev: a git revision to read them from (a tag, `HEAD`); the workspace if ``None``.

    Raises:
        MirasolError: a file is not JSON.
    """
    found: dict[str, Any] = {}
    for path in paths:
        text = text_at(Path(root), path, rev)
        if text is not None:
            try:
                found[path] = json.loads(text)
            except ValueError as error:
                raise MirasolError(f"{path}{f' at {rev}' if rev else ''}: not JSON: {error}") from None
    return found


def text_at(root: Path, path: str, rev: str | None) -> str | None:
    """The text of a file at ``rev``, of the workspace if ``None``; ``None`` where it does not exist."""
    with contextlib.suppress(FileNotFoundError, CommandError):
        return git(root, "show", f"{rev}:./{path}") if rev else (root / path).read_text(encoding="utf-8")
    return None
