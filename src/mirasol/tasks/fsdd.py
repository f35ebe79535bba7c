"""The Free Spoken Digit Dataset: 3,000 spoken digits, sound only; the published test split is index 0 to 4."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example
from mirasol.tasks.base.writer import refuse_world, write_data

PROMPT = "Classify the video audio clip."
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def import_fsdd(media: Path, out: Path) -> dict[str, Any]:
    """Copy ``media/{digit}_{speaker}_{index}.wav`` to ``out/media``; write the manifest and its summary.

    Index 0-4 is the published test split; 5-7 are our validation split; the group is the recording.

    Returns:
        The summary, which also stands in ``out/import.json``.

    Raises:
        MirasolError: no file of that name pattern is there, or ``out`` holds the built-in world.
    """
    refuse_world(out)
    folder = media / "recordings" if (media / "recordings").is_dir() else media
    examples: list[Example] = []
    for path in sorted(folder.glob("*.wav")):
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)\.wav", path.name)
        if match is None:
            continue
        index = int(match[3])
        split = "test" if index <= 4 else "val" if index <= 7 else "train"
        examples.append(
            Example(
                id=path.stem,
                media=f"media/{path.name}",
                start=None,
                end=None,
                task="qa",
                prompt=PROMPT,
                answers=(DIGITS[int(match[1])],),
                split=split,
                group=path.stem,
                family="classify",
                licence="CC-BY-SA-4.0",
            )
        )
    if not examples:
        raise MirasolError(f"{folder}: no file named digit_speaker_index.wav: point --media at the recordings")
    return write_data(out, folder, examples, "copy", {"set": "fsdd"})
