"""The progress of a stage as an artifact on its run's page, moved by the stage's own lines."""

from __future__ import annotations

import contextlib
import re
import time
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

EVERY = 10.0
"""Seconds between updates: each is a request to the server."""
PAUSE = 300.0
"""Seconds without updates after a failed one, which may have waited for the server for a minute."""

_COUNT = re.compile(r"([\d,]+)/([\d,]+) \w+")


class StageProgress:
    """The artifact `progress-<stage>`; it appears with the first line that begins with a count such as `8/16 clips`.

    A server that cannot be reached never fails the stage.
    """

    def __init__(self, stage: str) -> None:
        self._key = f"progress-{re.sub(r'[^a-z0-9]+', '-', stage.lower())}"
        self._artifact: UUID | None = None
        self._shown = self._text = ""
        self._due = 0.0

    def line(self, text: str) -> None:
        """Move the artifact if ``text`` is the stage's line of progress and the last update is `EVERY` seconds old."""
        if _COUNT.match(text):
            self._text = text
            if time.monotonic() >= self._due:
                self._show()

    def end(self) -> None:
        """Show the last line."""
        if self._text != self._shown:
            self._show()

    def _show(self) -> None:
        found = _COUNT.match(self._text)
        assert found is not None
        done, total = (int(number.replace(",", "")) for number in found.groups())
        percent = 100.0 * min(done, total) / max(total, 1)
        self._due = time.monotonic() + PAUSE
        with contextlib.suppress(httpx.HTTPError, PrefectException, OSError):
            if self._artifact is None:
                made = create_progress_artifact(percent, key=self._key, description=self._text)
                self._artifact = cast(UUID, made)  # not a coroutine: no loop runs in this thread
            else:
                update_progress_artifact(self._artifact, percent, description=self._text)
            self._shown = self._text
            self._due = time.monotonic() + EVERY
