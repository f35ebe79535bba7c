"""The end of every import: media in place, the manifest, and its summary."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, sha256_file, write_json
from mirasol.core.progress import Progress
from mirasol.data.linked_media import LISTING, write_listing
from mirasol.data.manifest import SPLITS, Example, write_manifest
from mirasol.tasks.base.append import SUMMARY, append_examples

LINKS = ("copy", "hardlink", "symlink")
HEAD = 1 << 16  # bytes to compare before whole files
COMMON = 20  # answers in the summary


def write_data(
    out: Path,
    media: Path,
    examples: Sequence[Example],
    link: str,
    facts: Mapping[str, Any],
    *,
    append: bool = False,
    elsewhere: Mapping[str, Path] = {},
) -> dict[str, Any]:
    """Bring the media of ``examples`` to ``out/media``, write ``out/manifest.jsonl`` and then ``out/import.json``.

    Args:
        media: the folder of the examples' paths without their ``media/``.
        link: one of LINKS, ``move``, or "" for that of the import before, else a copy.
        facts: the adapter's entries of the summary.
        append: keep the data sets that ``out`` holds; ``facts["set"]`` names the new one.
        elsewhere: the files that are not below ``media``, by their paths.

    Returns:
        The summary.

    Raises:
        MirasolError: the disk cannot be written, or an import before used another link; the old manifest stays.
            With ``append`` also the errors of :func:`append_examples`.
    """
    linked = media_linked(out, link)
    if linked and elsewhere:
        raise MirasolError(
            f"{next(iter(elsewhere.values()))} is not below {media}, to which {out / 'media'} is a link: bring the "
            "files there, or use --link copy or hardlink"
        )
    paths = sorted({e.media.removeprefix("media/") for e in examples})
    sets: dict[str, dict[str, Any]] = {}
    if append:
        examples, sets = append_examples(out, media, examples, facts["set"], elsewhere)
    sources = {path: elsewhere.get(path, media / path) for path in paths}
    # First every look into the media: an import that fails here has written nothing.
    counts = {**summarise(examples), **examine(lambda name: sources.get(name, out / "media" / name), examples)}
    if linked:
        link_folder(media, out / "media")
    else:
        with Progress("import", len(paths), "files") as progress:
            for path, source in sources.items():
                place(source, out / "media" / path, link or "copy")
                progress.advance()
    shared = {*counts, "unused_media", "manifest_sha256"}
    sets = {name: {key: value for key, value in known.items() if key not in shared} for name, known in sets.items()}
    summary = {"sets": {e.set: facts for e in examples} | sets, **counts} if append else {**facts, **counts}
    # A summary next to another manifest would be wrong: it goes first and comes back last.
    (out / SUMMARY).unlink(missing_ok=True)
    write_manifest(out / "manifest.jsonl", examples)
    paths = sorted({e.media.removeprefix("media/") for e in examples})
    if linked:
        write_listing(out, (f"media/{path}" for path in paths))
    else:
        (out / LISTING).unlink(missing_ok=True)  # left from links that have become files
    kept = {out / "media" / path for path in paths}
    summary["unused_media"] = sum(p.is_file() and p not in kept for p in (out / "media").rglob("*"))
    summary["manifest_sha256"] = sha256_file(out / "manifest.jsonl")
    write_json(out / SUMMARY, summary)
    return summary


def summarise(examples: Sequence[Example]) -> dict[str, Any]:
    """Counts of ``examples``: rows, clips, media and groups, per split, family, task, and of their answers."""
    splits = {}
    for split in SPLITS:
        rows = [e for e in examples if e.split == split]
        clips = {(e.media, e.start, e.end) for e in rows}
        if rows:
            splits[split] = {"examples": len(rows), "clips": len(clips), "groups": len({e.group for e in rows})}
    learnt = {e.answers[0] for e in examples if e.split == "train" and e.answers}
    known: dict[str, float] = {}  # the share of rows of val and test with an answer of the train split
    for split in ("val", "test"):
        rows = [e for e in examples if e.split == split]
        if rows and learnt:
            known[split] = round(sum(not learnt.isdisjoint(e.answers) for e in rows) / len(rows), 4)
    answers = Counter(e.answers[0] for e in examples if e.answers)
    return {
        "examples": len(examples),
        "clips": sum(counts["clips"] for counts in splits.values()),
        "media": len({e.media for e in examples}),
        "groups": len({e.group for e in examples}),
        "splits": splits,
        "tasks": dict(sorted(Counter(e.task for e in examples).items())),
        "families": dict(sorted(Counter(e.family for e in examples if e.family).items())),
        "answers": {"distinct": len(answers), "known_from_train": known, "most_common": most_common(answers)},
    }


def most_common(counts: Counter[str]) -> list[list[Any]]:
    """The first of ``counts`` with their numbers, equal ones by name: the same on every run."""
    return [[name, n] for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMON]]


def examine(place_of: Callable[[str], Path], examples: Iterable[Example]) -> dict[str, Any]:
    """The state of the media: without sound, without picture, unreadable, equal across splits.

    Args:
        place_of: the file of a path without its ``media/``.
    """
    from mirasol.media.probe import probe_file  # PyAV takes a while to load

    splits: dict[str, set[str]] = {}
    for example in examples:
        splits.setdefault(example.media.removeprefix("media/"), set()).add(example.split)
    silent, blind, partial, unreadable = [], [], [], []
    with Progress("look into media", len(splits), "files") as progress:
        for name in sorted(splits):
            status = probe_file(place_of(name), upto=0.0)
            if status.info is None:
                unreadable.append(status.reason.replace(str(place_of(name)), name))
            else:
                if not status.info.has_audio:
                    silent.append(name)
                if not status.info.has_video:
                    blind.append(name)
                if status.kind == "partial":
                    partial.append(f"{name}: {status.reason}")
            progress.advance()
    return {
        "media_without_audio": silent,
        "media_without_video": len(blind),
        "media_partial": partial,
        "media_unreadable": unreadable,
        "duplicates_across_splits": duplicates(place_of, splits),
    }


def duplicates(place_of: Callable[[str], Path], splits: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    """Different files of equal content in different splits, by SHA-256.

    Reads only files that could be equal: of one size, then of one beginning.
    """
    groups = _alike([sorted(splits)], splits, lambda name: str(place_of(name).stat().st_size))
    groups = _alike(groups, splits, lambda name: _head(place_of(name)))
    with Progress("compare media", sum(map(len, groups)), "files") as progress:

        def whole(name: str) -> str:
            progress.advance()
            return sha256_file(place_of(name))

        groups = _alike(groups, splits, whole)
    return [
        {"sha256": sha256_file(place_of(group[0])), "media": {name: sorted(splits[name]) for name in group}}
        for group in groups
    ]


def _alike(groups: Iterable[Sequence[str]], splits: Mapping[str, set[str]], key: Any) -> list[list[str]]:
    """``groups`` divided by ``key`` of their members, without those within one split or of one member."""
    found: list[list[str]] = []
    for group in groups:
        parted: dict[str, list[str]] = {}
        for name in group:
            parted.setdefault(key(name), []).append(name)
        found += [g for g in parted.values() if len(g) > 1 and len(set().union(*(splits[name] for name in g))) > 1]
    return found


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(HEAD)).hexdigest()


def refuse_world(out: Path) -> None:
    """Raise :class:`MirasolError` if ``out`` holds the built-in world: its questions fit no other data."""
    if (out / "families.json").exists():
        raise MirasolError(
            f"{out} holds the built-in world (families.json describes its questions): "
            "choose an empty folder with --out, or move the old data away"
        )


def check_link(link: str) -> None:
    """Raise :class:`MirasolError` if ``link`` is neither one of LINKS nor ""."""
    if link and link not in LINKS:
        raise MirasolError(f"link: {link!r} is not one of {', '.join(LINKS)}")


def media_linked(out: Path, link: str) -> bool:
    """Whether the media stay in place behind a link, by ``link`` or the import before.

    Raises:
        MirasolError: the two contradict each other: copies would go into a foreign folder, or be left behind.
    """
    target = out / "media"
    if target.is_symlink() and link in ("copy", "hardlink", "move"):
        raise MirasolError(f"{target} is a link to media elsewhere: use --link symlink, or another folder with --out")
    if link == "symlink" and target.exists() and not target.is_symlink():
        raise MirasolError(f"{target} holds media itself: move it away, or choose another folder with --out")
    return link == "symlink" or target.is_symlink()


def link_folder(source: Path, target: Path) -> None:
    """Make ``target`` a link to the folder ``source``, in one step, also where it was a link to another."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(source.resolve(), target_is_directory=True)
        temporary.replace(target)
    except OSError as error:
        raise disk_error(error, target) or error from error


def place(source: Path, target: Path, link: str) -> None:
    """Copy, link or move ``source`` to ``target``, whole or not at all, unless it already exists."""
    have, want = (target.stat() if target.exists() else None), source.stat()
    if have and (have.st_size, have.st_mtime_ns) == (want.st_size, want.st_mtime_ns):
        return
    temporary = target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:16]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        if link == "move":
            source.replace(target)
            return
        if link == "hardlink":
            os.link(source.resolve(), temporary)
        else:
            shutil.copy2(source, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if link == "hardlink":
            raise MirasolError(f"cannot link {source} to {target} ({error.strerror}): use --link copy") from error
        raise disk_error(error, target) or error from error
