"""The questions of a benchmark: from the set's own annotation files, or from a data folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import SPLITS, Example, read_manifest
from mirasol.tasks.base.append import SUMMARY
from mirasol.tasks.base.importer import Adapter, read_set
from mirasol.tasks.base.protocol import Protocol
from mirasol.tasks.registry import ADAPTERS

TASK = "qa"  # the task that is scored; captions and names of sounds only train


@dataclass(frozen=True)
class Questions:
    """The questions of a benchmark, and the facts that its score needs."""

    asked: tuple[Example, ...]  # in the order of the files
    train: tuple[Example, ...]  # of the training split, if available
    split: str  # in the set's words, or ours of a data folder
    folder: Path  # may have files of the set
    published: str | None = None  # the published split that these are, ``None`` for any other selection


def questions_of(
    protocol: Protocol, *, annotations: Path | None = None, data: Path | None = None, split: str | None = None
) -> Questions:
    """The questions of ``split``, by default the one with published figures.

    Args:
        annotations: folder of the set's own files: asks every question of the split.
        data: a data folder: asks the questions of its manifest.

    Raises:
        MirasolError: both or neither is given, a file is missing or wrong, the folder holds another set, or the
            split has no question.
    """
    if data is not None and annotations is None:
        return _of_data(protocol, data, split)
    if annotations is None or data is not None:
        raise MirasolError("name the questions: --annotations with the set's own files, or --data, and not both")
    adapter = ADAPTERS.get(protocol.name)
    if adapter is None:
        raise MirasolError(f"{protocol.name} has no annotation files: name a data folder with --data")
    wanted = split or protocol.split
    if wanted not in adapter.files:
        raise MirasolError(
            f"--split {wanted}: expected one of {', '.join(adapter.files)}, the splits of {adapter.name}"
        )
    asked = read_set(adapter, annotations, wanted)
    if not asked:
        counts = ", ".join(f"{name} {_count(adapter, annotations, name)}" for name in adapter.files)
        raise MirasolError(
            f"{annotations}: split {wanted!r} of {adapter.name} has no question with an answer, so there is nothing to "
            f"score ({counts}): choose another with --split"
        )
    # Scores of classes use no vocabulary, so they need no training split.
    learns = (
        wanted != "train"
        and protocol.closed != "classes"
        and any((annotations / name).is_file() for name in adapter.files["train"])
    )
    train = read_set(adapter, annotations, "train") if learns else []
    return Questions(tuple(asked), tuple(train), wanted, annotations, wanted)


def _count(adapter: Adapter, annotations: Path, split: str) -> str:
    """The size of a published split, in words."""
    if not any((annotations / name).is_file() for name in adapter.files[split]):
        return "no file"
    try:
        return f"has {len(read_set(adapter, annotations, split)):,}"
    except MirasolError:
        return "cannot be read"


def _of_data(protocol: Protocol, data: Path, split: str | None) -> Questions:
    examples = read_manifest(data / "manifest.jsonl")
    summary = import_summary(data)
    if protocol.name in summary.get("sets", {}):  # a folder with several data sets
        summary = {**summary["sets"][protocol.name], "set": protocol.name}
        examples = [e for e in examples if e.set == protocol.name]
    name = summary.get("set")
    if protocol.name in ADAPTERS and name != protocol.name:
        held = f"{data / SUMMARY}: this folder holds {name!r}" if name else f"{data}: no {SUMMARY} that names a set"
        raise MirasolError(
            f"{held}, expected {protocol.name!r}: make its folder with `mirasol data import {protocol.name}`, name "
            "another with --data, or score these questions as `generic` or `world`"
        )
    ours = split or _ours(protocol, summary)
    if ours not in SPLITS:
        raise MirasolError(f"--split {ours}: expected one of {', '.join(SPLITS)}, the splits of a manifest")
    asked = tuple(e for e in examples if e.split == ours and e.task == TASK)
    if not asked:
        counts = ", ".join(f"{s} has {sum(e.split == s and e.task == TASK for e in examples)}" for s in SPLITS)
        raise MirasolError(
            f"{data / 'manifest.jsonl'}: split {ours!r} has no example of task {TASK!r}, so there is nothing to score "
            f"({counts}): choose another with --split"
        )
    train = tuple(e for e in examples if e.split == "train" and e.task == TASK and ours != "train")
    return Questions(asked, train, ours, data, published_split(protocol, summary, ours))


def _ours(protocol: Protocol, summary: dict[str, Any]) -> str:
    """Our split for the published one; an import may have used it as another."""
    adapter = ADAPTERS.get(protocol.name)
    usual = adapter.splits[protocol.split] if adapter else protocol.split
    return str(summary.get("used_as", {}).get(protocol.split, usual))


def published_split(protocol: Protocol, summary: Mapping[str, Any], ours: str) -> str | None:
    """The published split that an import with this ``summary`` used as ``ours``; ``None`` without one, as for a val
    made from train."""
    adapter = ADAPTERS.get(protocol.name)
    if adapter is None:
        return None
    used: Mapping[str, str] = summary.get("used_as") or adapter.splits
    names = [name for name, split in used.items() if split == ours]
    return names[0] if len(names) == 1 else None


def import_summary(data: Path) -> dict[str, Any]:
    """``import.json`` of a data folder, empty without one.

    Raises:
        MirasolError: the file is not a JSON object.
    """
    path = data / SUMMARY
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MirasolError(f"{path}: not JSON ({error}): import the set again") from error
    if not isinstance(value, dict):
        raise MirasolError(f"{path}: expected an object, got {type(value).__name__}: import the set again")
    return value


def media_of(questions: Sequence[Example]) -> list[dict[str, Any]]:
    """The media of ``questions`` with the number of their questions, in order."""
    counts: dict[str, int] = {}
    for question in questions:
        counts[question.media] = counts.get(question.media, 0) + 1
    return [{"media": media, "questions": count} for media, count in counts.items()]
