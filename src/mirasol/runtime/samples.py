"""Sample clips next to a bundle: media files, and `samples.json` with a question about each and its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.runtime.sources.files import SUFFIXES

SAMPLES = "samples"  # the folder in a bundle
SAMPLES_FILE = "samples.json"


@dataclass(frozen=True)
class Sample:
    """A clip; the texts are empty where no `samples.json` names them."""

    file: str  # a name in the folder
    question: str = ""
    answer: str = ""  # of the bundle that the clips were made for
    expected: str = ""  # the true one
    sha256: str = ""  # of the file


def read_samples(folder: Path) -> list[Sample]:
    """The clips of ``folder``: those that `samples.json` lists, else every media file by name.

    Raises:
        MirasolError: no such folder, no clip in it, or `samples.json` is damaged or lists a file that is missing or
            another one.
    """
    listed = folder / SAMPLES_FILE
    if not folder.is_dir():
        raise MirasolError(f"{folder}: no such folder: expected one with sample clips")
    if not listed.is_file():
        files = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
        if not files:
            raise MirasolError(f"{folder} holds no media file: expected sample clips, such as .mp4 or .wav")
        return [Sample(name) for name in files]
    try:
        rows = json.loads(listed.read_text(encoding="utf-8"))
        samples = [_sample(row) for row in rows]
    except (TypeError, ValueError) as error:  # other fields, or no list
        raise MirasolError(f"{listed} is damaged: {error}. Copy the folder again") from None
    for sample in samples:
        path = folder / sample.file
        if not path.is_file():
            raise MirasolError(f"{path} is missing, {SAMPLES_FILE} lists it. Copy the folder again")
        if sample.sha256 and sha256_file(path) != sample.sha256:
            raise MirasolError(f"{path} is not the file that {SAMPLES_FILE} lists. Copy the folder again")
    return samples


def _sample(row: Any) -> Sample:
    sample = Sample(**row)
    if not all(isinstance(value, str) for value in vars(sample).values()) or Path(sample.file).name != sample.file:
        raise ValueError(f"expected texts and a plain file name, got {row}")
    return sample
