"""The registry of releases: a folder with a bundle for each, and which of them is current. Without torch.

    runs/releases/
      model-1/            the bundle, and release.json: name, commit, bundle's hash, date, figures
      model-2/
      current.json        {"history": ["model-1", "model-2"]}: the last is current, rollback goes back by one

A bundle is named by `release:current` or `release:NAME` wherever a bundle's folder is expected. The folder is
`runs/releases` in the working directory, or that of the environment variable MIRASOL_RELEASES.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, sha256_file, write_json
from mirasol.runtime.contract import CONTRACT_FILE, read_contract

FOLDER = Path("runs", "releases")
VARIABLE = "MIRASOL_RELEASES"
RELEASE_FILE, CURRENT_FILE, LOCK_FILE = "release.json", "current.json", ".lock"
PREFIX = "release:"
CURRENT = "current"
NAME = re.compile(r"model-([1-9]\d*)")


@dataclass(frozen=True)
class Release:
    """A released bundle."""

    name: str
    folder: Path
    commit: str
    bundle: str  # SHA-256 of its contract.json, which lists the hashes of all files
    date: str  # ISO 8601 with time zone, "" if not recorded
    metrics: dict[str, Any]  # gate -> {"value", "released"}

    @property
    def result(self) -> float | None:
        """The first gated metric."""
        values = [gate["value"] for gate in self.metrics.values()]
        return values[0] if values else None


class Registry:
    """The releases in ``folder``; a missing folder has none. Changes take turns between processes."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or os.environ.get(VARIABLE) or FOLDER)

    def releases(self) -> list[Release]:
        """All releases, oldest first."""
        found = [p for p in self.folder.iterdir() if NAME.fullmatch(p.name)] if self.folder.is_dir() else []
        return [_read(folder) for folder in sorted(found, key=lambda p: int(p.name.partition("-")[2]))]

    def get(self, name: str) -> Release:
        """The release called ``name``, or the current one for "current".

        Raises MirasolError if there is none; the message lists the names.
        """
        if name == CURRENT:
            if (current := self.current()) is None:
                raise MirasolError(f"{self.folder}: no release yet: make one with `python -m flows.release`")
            return current
        if not NAME.fullmatch(name) or not (self.folder / name).is_dir():
            names = ", ".join(release.name for release in self.releases()) or "none"
            raise MirasolError(f"{self.folder}: no release {name!r}. It holds: {names}")
        return _read(self.folder / name)

    def current(self) -> Release | None:
        """The release in use; ``None`` before the first."""
        history = self._history()
        return _read(self.folder / history[-1]) if history else None

    def promote(self, name: str) -> Release:
        """Make a release current, after a check of its bundle.

        Raises MirasolError if it does not exist or its bundle is damaged; the current release stays.
        """
        with self.changing():
            release = self.get(name)
            read_contract(release.folder)
            self.append(release.name)
        return release

    def rollback(self) -> Release:
        """Make the release current that was so before the current one.

        Raises MirasolError if there was none, or its bundle is damaged; the current release stays.
        """
        with self.changing():
            history = self._history()
            if len(history) < 2:
                if history:
                    now = f"only {history[0]} was current: choose a release with `mirasol releases promote NAME`"
                else:
                    now = "no release yet: make one with `python -m flows.release`"
                raise MirasolError(f"{self.folder}: nothing to go back to: {now}")
            read_contract(self.folder / history[-2])
            self._write(history[:-1])
            return _read(self.folder / history[-2])

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the registry's lock: another process that changes it waits."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, self.folder) or error from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def append(self, name: str) -> None:
        """Record that ``name`` is current now; call it while ``changing``."""
        history = self._history()
        if history[-1:] != [name]:
            self._write([*history, name])

    def _history(self) -> list[str]:
        """Names that were current, the last one now; releases whose folder is gone are left out.

        Before the first record: all releases, so that the newest is current.
        """
        path = self.folder / CURRENT_FILE
        if not path.is_file():
            return [release.name for release in self.releases()]
        try:
            names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["history"]]
        except (ValueError, KeyError, TypeError) as error:
            raise MirasolError(
                f"{path} is damaged ({error!r}): remove it, then `mirasol releases promote NAME`"
            ) from error
        kept = [name for name in names if NAME.fullmatch(name) and (self.folder / name).is_dir()]
        return [name for i, name in enumerate(kept) if i == 0 or name != kept[i - 1]]

    def _write(self, history: list[str]) -> None:
        write_json(self.folder / CURRENT_FILE, {"history": history})


def resolve(bundle: str | Path) -> Path:
    """The folder of ``bundle``: a path stays as it is, `release:NAME` is looked up in the registry.

    Raises MirasolError if there is no such release.
    """
    name = str(bundle)
    return Registry().get(name.removeprefix(PREFIX)).folder if name.startswith(PREFIX) else Path(bundle)


def bundle_hash(folder: Path) -> str:
    """SHA-256 of a bundle's contract.json."""
    return sha256_file(folder / CONTRACT_FILE)


def _read(folder: Path) -> Release:
    path = folder / RELEASE_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        commit, metrics = str(values["commit"]), dict(values["metrics"])
        bundle = str(values.get("bundle") or bundle_hash(folder))  # early releases did not record it
        return Release(folder.name, folder, commit, bundle, str(values.get("date", "")), metrics)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MirasolError(f"{path} is missing or damaged ({error!r}): copy the release again, or remove it") from error
