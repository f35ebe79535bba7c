"""The way from the annotation files of a published set to a data folder, common to all sets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import sha256_file
from mirasol.data.manifest import CLASSIFY_PROMPT, FIELDS, SPLITS, Example, check_example, example_of
from mirasol.tasks.base.annotations import Annotations
from mirasol.tasks.base.media_patterns import MediaFolder, check_pattern, fill
from mirasol.tasks.base.writer import check_link, examine, refuse_world, summarise, write_data

SHOWN_MISSING = 10
VAL_OF = 20  # one group in so many of the train split becomes the val split of a set that has none


@dataclass(frozen=True)
class Row:
    """One row of a published set."""

    where: str  # file and line, or file and index
    id: str
    names: Mapping[str, str | int]  # fields for patterns of media names
    group: str  # the source video
    answers: tuple[str, ...]
    prompt: str = CLASSIFY_PROMPT
    task: str = "qa"
    family: str = "classify"
    start: float | None = None
    end: float | None = None
    options: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()  # of sets with classes, counted in the summary


@dataclass(frozen=True)
class Adapter:
    """A published set: its files, the names of its media, and how to read its rows."""

    name: str  # `mirasol data import NAME`
    about: str  # one sentence for the help
    licence: str  # of the annotations, or "none stated"
    files: Mapping[str, tuple[str, ...]]  # published split -> names of its file, the first that exists counts
    fields: tuple[str, ...]  # allowed in patterns
    patterns: tuple[str, ...]  # the usual names of the media, tried in this order
    read: Callable[[Annotations, Path, str], Iterator[Row]]  # the rows of a published split in a file
    renamed: Mapping[str, str] = field(default_factory=dict)  # published split -> one of SPLITS, unless equal

    @property
    def splits(self) -> dict[str, str]:
        """Published split -> one of SPLITS."""
        return {name: self.renamed.get(name, name) for name in self.files}


@dataclass(frozen=True)
class ImportOptions:
    """The choices of an import.

    Args:
        splits: published splits to take, each as ``name`` or as ``name=split`` to use it as another of ours;
            empty: all with files.
        patterns: names of the media below the media folder, instead of the set's usual ones: ``video{video_id}.mp4``;
            ``*`` stands for any characters within one name, and the first pattern that finds a file counts.
        link: ``copy``, ``hardlink`` to save space on the same disk, or ``symlink`` to leave the media in place;
            empty: like the import before, else a copy.
        skip_missing: leave out and list rows without a file, instead of failing.
        dry_run: write nothing; list missing media instead of failing.
        append: keep the data sets that the folder holds, and name the data set of each row.
    """

    splits: Sequence[str] = ()
    patterns: Sequence[str] = ()
    link: str = ""
    skip_missing: bool = False
    dry_run: bool = False
    append: bool = False


def import_set(
    adapter: Adapter, annotations: Path, media: Path | None, out: Path, options: ImportOptions = ImportOptions()
) -> dict[str, Any]:
    """Write ``out/manifest.jsonl``, ``out/media/...`` and the summary ``out/import.json``.

    Args:
        annotations: the folder with the set's own annotation files.
        media: the folder with the videos or sounds; ``None`` in a dry run: without looking up media.

    Returns:
        The summary.

    Raises:
        MirasolError: files are missing, rows are wrong (the message lists all), or rows name missing media.
    """
    check_link(options.link)
    dry_run, patterns = options.dry_run, options.patterns or adapter.patterns
    if media is None and not dry_run:
        raise MirasolError("--media is missing: name the folder with the media, or only count the rows with --dry-run")
    if media is not None and not media.is_dir():
        raise MirasolError(f"{media}: no such folder: --media names the folder with the media of {adapter.name}")
    if not dry_run:
        refuse_world(out)
    for pattern in patterns:
        check_pattern(pattern, adapter.fields)
    found = Annotations(annotations)
    mapping, chosen, absent = _choose(adapter, found, options.splits)
    rows = [(split, row) for split, path in chosen.items() for row in adapter.read(found, path, split)]
    ours = _splits(rows, mapping)
    examples, lost = _examples(adapter, found, rows, ours, media, patterns)
    if found.wrong:
        raise MirasolError(listing(f"{len(found.wrong)} error(s) in the annotations", found.wrong))
    if lost and not (options.skip_missing or dry_run):
        title = (
            f"{len(lost)} of {len(rows)} rows have no file below {media} named "
            f"{' or '.join(patterns)}: bring the files, give their names with --pattern, or leave "
            "these rows out with --skip-missing"
        )
        first = {name: where for where, name in reversed(lost)}
        rows_of = Counter(name for _, name in lost)
        lines = [f"{first[name]}: {name}, of {count} row(s)" for name, count in rows_of.items()]
        raise MirasolError(listing(title, lines, SHOWN_MISSING))
    facts = {
        "set": adapter.name,
        "files": {name: sha256_file(annotations / name) for name in sorted(found.used)},
        "rows": dict(Counter(split for split, _ in rows)),
        "used_as": {split: mapping[split] for split in chosen},
        "absent": absent,
        **_notes(found, rows, ours, mapping),
    }
    if media is not None:
        facts |= {"skipped_rows": len(lost), "missing_media": sorted({name for _, name in lost})}
    if dry_run or media is None:
        return facts | summarise(examples) | (examine(media.joinpath, examples) if media else {})
    if not examples:
        raise MirasolError(f"{annotations}: no row is left, {len(lost)} have no file: is --media {media} right?")
    return write_data(out, media, examples, options.link, facts, append=options.append)


def read_set(adapter: Adapter, annotations: Path, split: str) -> list[Example]:
    """The examples of one published split, with the ids of an import.

    Looks up no media: each example names the file that is usual for the set.

    Raises:
        MirasolError: files are missing, or rows are wrong (the message lists all).
    """
    found = Annotations(annotations)
    mapping, chosen, _ = _choose(adapter, found, [split])
    rows = [(split, row) for row in adapter.read(found, chosen[split], split)]
    examples, _ = _examples(adapter, found, rows, [mapping[split]] * len(rows), None, adapter.patterns)
    if found.wrong:
        raise MirasolError(listing(f"{len(found.wrong)} error(s) in the annotations", found.wrong))
    return examples


def _choose(
    adapter: Adapter, found: Annotations, wanted: Sequence[str]
) -> tuple[dict[str, str], dict[str, Path], list[str]]:
    """Published split -> ours; published split -> the file to read; published splits without files."""
    mapping, names = adapter.splits, []
    for text in wanted:
        name, _, other = text.partition("=")
        if name not in adapter.files or (other or "train") not in SPLITS:
            raise MirasolError(
                f"--split {text!r}: expected one of {', '.join(adapter.files)}, and after a `=` one of "
                f"{', '.join(SPLITS)}: {adapter.name} has these splits"
            )
        names.append(name)
        mapping[name] = other or mapping[name]
    paths = {name: found.find(*files) for name, files in adapter.files.items() if not names or name in names}
    chosen = {name: path for name, path in paths.items() if path is not None}
    absent = [name for name in paths if name not in chosen]
    if (names and absent) or not chosen:
        lacking = sorted({" or ".join(adapter.files[name]) for name in absent})
        raise MirasolError(f"{found.folder}: no file {', no file '.join(lacking)}: --annotations is their folder")
    return mapping, chosen, absent


def _splits(rows: Iterable[tuple[str, Row]], mapping: Mapping[str, str]) -> list[str]:
    """Our split of each row: as published, and a val split out of train, by group, if the set has none."""
    divided = () if "val" in mapping.values() else ("train",)
    return ["val" if mapping[name] in divided and for_val(row.group) else mapping[name] for name, row in rows]


def for_val(group: str) -> bool:
    """Whether a group of the train split goes to val, of a set without one: the same on every machine."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % VAL_OF == 0


def _examples(
    adapter: Adapter,
    found: Annotations,
    rows: Sequence[tuple[str, Row]],
    ours: Sequence[str],
    media: Path | None,
    patterns: Sequence[str],
) -> tuple[list[Example], list[tuple[str, str]]]:
    """The examples of the rows, and (where, name) of those without a file."""
    files = MediaFolder(media, patterns) if media is not None else None
    astray = set(_astray(rows, ours))
    seen: Counter[str] = Counter()
    known: dict[tuple[str | int, ...], list[str]] = {}
    examples: list[Example] = []
    lost: list[tuple[str, str]] = []
    for (_, row), split in zip(rows, ours, strict=True):
        usual = "*".join(fill(patterns[0], row.names))
        key = tuple(row.names.values())
        if key not in known:
            known[key] = files.find(row.names) if files else [usual]
        names = known[key] or [usual]
        seen[row.id] += 1
        values = {name: value for name, value in vars(row).items() if name in FIELDS} | {
            "id": row.id if seen[row.id] == 1 else f"{row.id}#{seen[row.id]}",
            "media": f"media/{names[0]}",
            "split": split,
            "group": f"{row.group}@{split}" if row.group in astray else row.group,
            "licence": adapter.licence,
        }
        errors = check_example(values)
        if len(names) > 1:
            errors.append(f"several files are named so, {', '.join(names[:3])}: choose with a narrower --pattern")
        found.wrong += [f"{row.where}: {error}" for error in errors]
        if not known[key]:
            lost.append((row.where, usual))
        elif not errors:
            examples.append(example_of(values))
    return examples, lost


def _astray(rows: Iterable[tuple[str, Row]], ours: Iterable[str]) -> list[str]:
    """Groups in several of the published splits."""
    splits: dict[str, set[str]] = {}
    for (_, row), split in zip(rows, ours, strict=True):
        splits.setdefault(row.group, set()).add(split)
    return sorted(group for group, names in splits.items() if len(names) > 1)


def _notes(
    found: Annotations, rows: Sequence[tuple[str, Row]], ours: Sequence[str], mapping: Mapping[str, str]
) -> dict[str, Any]:
    """Facts about splits, classes and ids for the summary."""
    notes = dict(found.notes)
    if "val" not in mapping.values():
        notes["val_from_train"] = f"one group in {VAL_OF}, by its hash: {ours.count('val')} rows"
    notes["groups_in_several_splits"] = _astray(rows, ours)
    classes = Counter(name for _, row in rows for name in row.classes)
    if classes:
        notes["classes"] = {"distinct": len(classes), "counts": dict(sorted(classes.items()))}
    ids = Counter(row.id for _, row in rows)
    notes["repeated_ids"] = sorted(name for name, count in ids.items() if count > 1)
    if any(row.options for _, row in rows):
        notes["right_option_stands_twice"] = [r.id for _, r in rows if r.options.count(r.answers[0]) > 1]
    return notes
