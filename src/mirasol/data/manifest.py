"""The manifest: one row per example, and the clips that the rows are about. Without torch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import atomic_write
from mirasol.core.tables import parse_json
from mirasol.data.storage import check_url, is_url

UNLABELLED = "unlabelled"  # a clip without texts: `pretrain` learns from picture and sound alone
TASKS = ("caption", "audio_class", "qa", UNLABELLED)
SPLITS = ("train", "val", "test")
EMPTY = {  # why a split without clips ends the work
    "train": "there is nothing to learn from",
    "val": "training cannot score itself",
    "test": "there is nothing to score",
}
CAPTION_PROMPT = "Describe the clip."
AUDIO_PROMPT = "Classify the audio clip."
CLASSIFY_PROMPT = "Classify the video audio clip."  # P 4: classification as open-ended text
TEXTS = ("prompt", "answers", "options")  # fields that are empty in a row of a clip without texts
SET = re.compile(r"[\w.-]*")


@dataclass(frozen=True)
class Example:
    """One text about one clip, or a clip without texts: a row of ``manifest.jsonl``."""

    id: str
    media: str  # path relative to the manifest's folder, with forward slashes, or a URL (`storage.SCHEMES`)
    start: float | None  # seconds of presentation time; None: from the beginning
    end: float | None  # None: to the end
    task: str  # one of TASKS
    prompt: str
    answers: tuple[str, ...]  # the first is the training target, any is correct
    split: str  # one of SPLITS
    group: str  # the source video: splits and intervals go by group
    family: str = ""  # question family, "" if none
    licence: str = ""
    options: tuple[str, ...] = ()  # of a multiple choice, in the order of the set; the correct one is ``answers[0]``
    set: str = ""  # the data set, where a folder holds several: a phase mixes them by these names (``mix``)


@dataclass(frozen=True)
class Clip:
    """All examples with equal media, start, end and split: one sample of a shard."""

    key: str
    media: str
    start: float | None
    end: float | None
    split: str
    examples: tuple[Example, ...]


FIELDS = tuple(field.name for field in dataclasses.fields(Example))
OPTIONAL = ("options", "set")  # keys that are left out when empty, so that older manifests and shards stay the same


def clip_key(media: str, start: float | None, end: float | None, split: str) -> str:
    """Name of a clip in the shards: 16 hexadecimal characters that depend on these four values only."""
    text = json.dumps([media, start, end, split], ensure_ascii=True)
    return hashlib.sha1(text.encode()).hexdigest()[:16]


def clips_of(examples: Iterable[Example]) -> list[Clip]:
    """The clips of ``examples`` in the order of their first example."""
    found: dict[str, list[Example]] = {}
    for e in examples:
        found.setdefault(clip_key(e.media, e.start, e.end, e.split), []).append(e)
    return [
        Clip(key, rows[0].media, rows[0].start, rows[0].end, rows[0].split, tuple(rows)) for key, rows in found.items()
    ]


def read_manifest(path: str | Path) -> list[Example]:
    """Every example of ``path``, in the order of the file. The shards stage checks whether the media exist.

    Raises:
        MirasolError: the file is missing, or lines are wrong; the message lists each as ``file:line: error``.
    """
    path = Path(path)
    if not path.is_file():
        raise MirasolError(
            f"{path}: no such file: make the built-in world with `mirasol world --out {path.parent}`, "
            "or bring your own videos with `mirasol data import generic`"
        )
    errors: list[str] = []
    examples: list[Example] = []
    line_of_id: dict[str, int] = {}
    split_of_group: dict[str, tuple[str, int]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            row, wrong = _parse(line)
            errors += [f"{path}:{number}: {message}" for message in wrong]
            if row is None:
                continue
            if (first := line_of_id.setdefault(row.id, number)) != number:
                errors.append(f"{path}:{number}: id {row.id!r} repeats that of line {first}: ids must differ")
            split, line_of_group = split_of_group.setdefault(row.group, (row.split, number))
            if split != row.split:
                errors.append(
                    f"{path}:{number}: group {row.group!r} is in split {row.split!r} here and in {split!r} in "
                    f"line {line_of_group}: a source video belongs to one split"
                )
            examples.append(row)
    if errors:
        raise MirasolError(listing(f"{len(errors)} error(s) in the manifest", errors))
    if not examples:
        raise MirasolError(f"{path}: holds no example: every line is one JSON object with the keys {', '.join(FIELDS)}")
    return examples


def write_manifest(path: str | Path, examples: Iterable[Example]) -> None:
    """Write ``examples`` in the order given, whole or not at all.

    Raises:
        MirasolError: the folder cannot be written.
    """
    with atomic_write(path, "w") as file:
        for example in examples:
            file.write(json.dumps(row_of(example), sort_keys=True, ensure_ascii=False) + "\n")


def needed_splits(splits: Collection[str], *, texts: bool) -> list[str]:
    """The splits that the stages need of clips in ``splits``, of which any has a text or none has.

    Test clips alone are a benchmark without training, and clips without texts need no val. Without test clips
    ``evaluate.split`` can be val.
    """
    if set(splits) == {"test"}:
        return ["test"]
    return ["train", "val"] if texts else ["train"]


def lacking_split(needed: Iterable[str], present: Collection[str]) -> str | None:
    """The first of ``needed`` that is not ``present``, with the reason and the remedy; ``None``: all are."""
    for split in needed:
        if split not in present:
            return (
                f"the split {split}: {EMPTY[split]}. Give some groups that split (column `split` of the annotations), "
                "or bring more groups: where annotations give no split, a hash of the group chooses, which may skip one"
            )
    return None


def row_of(example: Example) -> dict[str, Any]:
    """``example`` as a JSON object, without empty optional keys."""
    return {name: value for name, value in vars(example).items() if value or name not in OPTIONAL}


def example_of(row: Mapping[str, Any]) -> Example:
    """The example of a row made by :func:`row_of` or accepted by :func:`check_example`."""
    lists = {name: tuple(row.get(name, ())) for name in ("answers", "options")}
    times = {name: None if row[name] is None else float(row[name]) for name in ("start", "end")}
    return Example(**{**row, **lists, **times})


def _parse(line: bytes) -> tuple[Example | None, list[str]]:
    """The example of a line, or its errors."""
    try:
        row = parse_json(line.decode(), unique=True)
    except ValueError as error:
        return None, [str(error)]
    if not isinstance(row, dict):
        return None, ["expected one JSON object, like {" + ", ".join(f'"{name}": …' for name in FIELDS) + "}"]
    errors = [f"missing key {name!r}" for name in FIELDS if name not in row and name not in OPTIONAL]
    errors += [f"unknown key {name!r}: allowed are {', '.join(FIELDS)}" for name in row if name not in FIELDS]
    errors += check_example(row, whole=not errors)
    return (None, errors) if errors else (example_of(row), [])


def check_example(row: Mapping[str, Any], *, whole: bool = True) -> list[str]:
    """Errors in the values of an example: of each field and, if all fields exist (``whole``), of their combination."""
    bare = row.get("task") == UNLABELLED
    checks = {name: _check_bare if bare and name in (*TEXTS, "split") else check_field for name in FIELDS}
    errors = [wrong for name, check in checks.items() if name in row and (wrong := check(name, row[name]))]
    if errors or not whole:
        return errors
    start, end, options = row["start"] or 0.0, row["end"], row.get("options")
    if end is not None and end <= start:
        errors.append(f"end {end:g} is not after start {start:g}")
    if options and row["answers"][0] not in options:
        errors.append(f"options: {row['answers'][0]!r}, the first of the answers, is none of {list(options)}")
    return errors


def _check_bare(name: str, value: Any) -> str | None:
    """The error in a text or in the split of a row of task ``UNLABELLED``, or ``None``."""
    if name == "split":
        good, expected = value == "train", "'train', since it cannot be scored"
    else:
        good, expected = value in (("",) if name == "prompt" else ([], ())), "none"
    return None if good else f"{name}: got {value!r}, a clip of task {UNLABELLED!r} has no texts: expected {expected}"


def check_field(name: str, value: Any) -> str | None:
    """The error in one value of an example, or ``None``."""
    if name in ("start", "end"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        good = value is None or (number and 0 <= value <= sys.float_info.max)
        return None if good else f"{name}: expected seconds >= 0 or null, got {value!r}"
    if name == "answers":
        good = isinstance(value, (list, tuple)) and value and all(isinstance(a, str) and a.strip() for a in value)
        return None if good else f"answers: expected a list of at least one text, got {value!r}"
    if name == "options":
        good = isinstance(value, (list, tuple)) and len(value) != 1 and all(isinstance(o, str) and o for o in value)
        return None if good else f"options: expected a list of at least two texts, or none, got {value!r}"
    if not isinstance(value, str):
        return f"{name}: expected a text, got {value!r}"
    if name == "set":
        return None if SET.fullmatch(value) else f"set: {value!r} has other characters than letters, digits and _.-"
    if name not in ("family", "licence") and not value.strip():
        return f"{name}: is empty"
    allowed = {"task": TASKS, "split": SPLITS}.get(name)
    if allowed and value not in allowed:
        return f"{name}: {value!r} is not one of {', '.join(allowed)}"
    if name == "media":
        return check_media(value)
    return None


@functools.lru_cache(maxsize=1024)  # consecutive rows are often about one clip
def check_media(value: str) -> str | None:
    """Why ``value`` is neither a path inside the data folder nor a URL of a known store, or ``None``."""
    if is_url(value):
        return f"media: {wrong}" if (wrong := check_url(value)) else None
    parts = PurePosixPath(value).parts
    if value.startswith(("/", "~")) or ".." in parts or "\\" in value or "\0" in value:
        return f"media: {value!r} must be a path inside the manifest's folder, with '/' and without '..'"
    return None
