"""Your own videos: a data folder from a CSV or JSONL file of annotations and a folder of media.

One row is one example. Columns (JSONL: keys):

======== ======== ===========================================================================================
media    required path below the media folder
answers  required CSV: separated by ``|``; JSONL: a list, or one text. Training uses the first, any counts as right
start    optional seconds, or hours:minutes:seconds; empty: the beginning
end      optional likewise; empty: the end
prompt   optional empty: the task's own, for ``qa`` the classification prompt
task     optional ``qa`` (default), ``caption``, ``audio_class``; ``unlabelled``: of train, without prompt and answers
group    optional source video, if several files or clips were cut from one; empty: the media path
split    optional ``train``, ``val`` or ``test``; empty: 80/10/10 by a hash of the group, below 300 groups 65/15/20
family   optional kind of question, for the report
licence  optional
options  optional of a multiple choice, like ``answers``; the first of the answers is the right one
id       optional empty: the annotation file's name and the row's number
set      optional name of the data set, where a folder holds several
======== ======== ===========================================================================================

Commas, semicolons or tabs separate the columns of a CSV. ``./a.mp4`` means ``a.mp4``. Zero-width characters are
removed.

Score: exact match over all questions and per family, as on the published sets of questions.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.tables import SECONDS, csv_rows, is_file, parse_json, read_text, seconds_of
from mirasol.data.manifest import (
    AUDIO_PROMPT,
    CAPTION_PROMPT,
    CLASSIFY_PROMPT,
    FIELDS,
    UNLABELLED,
    Example,
    check_example,
    example_of,
)
from mirasol.data.storage import is_url
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.splits import splits_of
from mirasol.tasks.base.unlabelled import find_unlabelled
from mirasol.tasks.base.writer import check_link, refuse_world, write_data

Row = dict[str, Any]  # of the annotation file
REQUIRED = ("media", "answers")
PROMPTS = {"qa": CLASSIFY_PROMPT, "caption": CAPTION_PROMPT, "audio_class": AUDIO_PROMPT, UNLABELLED: ""}
SHOWN_MISSING = 10
# Zero-width space, word joiner, byte order mark and soft hyphen vanish; a no-break space becomes a space.
INVISIBLE = {0x200B: None, 0x2060: None, 0xFEFF: None, 0x00AD: None, 0x00A0: " "}
CALLED = {  # columns as other tools name them
    **dict.fromkeys(("file", "filename", "file_name", "path", "video", "clip", "audio"), "media"),
    **dict.fromkeys(("question", "text"), "prompt"),
    **dict.fromkeys(("answer", "label", "class", "caption", "target"), "answers"),
    **dict.fromkeys(("begin", "from", "start_time"), "start"),
    **dict.fromkeys(("stop", "to", "end_time"), "end"),
}


def import_generic(
    annotations: Path | None,
    media: Path,
    out: Path,
    *,
    link: str = "",
    skip_missing: bool = False,
    append: bool = False,
    unlabelled: Path | None = None,
) -> dict[str, Any]:
    """Write ``out/manifest.jsonl``, ``out/import.json`` and ``out/media/...``; copies only missing files.

    Args:
        annotations: a ``.csv`` or ``.jsonl`` file, UTF-8; ``None``: clips without texts alone.
        media: the folder that the rows' paths start from.
        link: as in :class:`mirasol.tasks.base.importer.ImportOptions`.
        skip_missing: leave out and count rows without a file, instead of failing.
        append: keep the data sets that ``out`` holds, and name the data set of each row.
        unlabelled: a folder of media without annotations (:func:`mirasol.tasks.base.unlabelled.find_unlabelled`).

    Returns:
        The summary, also written to ``out/import.json``.

    Raises:
        MirasolError: rows are wrong or name missing files (each listed as ``file:line``), ``unlabelled`` has no
            medium, ``out`` holds another kind of data set, or it cannot be written.
    """
    check_link(link)
    if not media.is_dir():
        raise MirasolError(
            f"{media}: no such folder: --media names the folder that the paths of {annotations} start from"
        )
    refuse_world(out)
    examples, skipped = _annotated(annotations, media, skip_missing=skip_missing) if annotations else ([], 0)
    facts: dict[str, Any] = {"set": "generic", "skipped_rows": skipped}
    elsewhere: dict[str, Path] = {}
    if unlabelled is not None:
        found = find_unlabelled(unlabelled, media, examples)
        sets = {e.set for e in examples}
        theirs = sets.pop() if len(sets) == 1 else ""  # clips without texts are of the set that they come with
        examples = [*examples, *(dataclasses.replace(e, set=theirs) for e in found.examples)]
        elsewhere = found.elsewhere
        facts["unlabelled"] = found.facts
    return write_data(out, media, examples, link, facts, append=append, elsewhere=elsewhere)


def _annotated(annotations: Path, media: Path, *, skip_missing: bool) -> tuple[list[Example], int]:
    """The examples of the rows, and the number of those that are left out."""
    rows, wrong = _rows(annotations)
    examples, missing = _examples(annotations, media, rows, wrong)
    check_segments(annotations, media, rows)
    if missing and not skip_missing:
        title = (
            f"{len(missing)} of {len(rows)} rows name a file that is not below {media}: bring the files, "
            "fix the paths, or leave these rows out with --skip-missing"
        )
        if any(is_url(str(row.get("media"))) for _, row in rows):
            title += "; media behind URLs are no files: rows of them go into manifest.jsonl itself (docs/data.md)"
        raise MirasolError(listing(title, missing, SHOWN_MISSING))
    if not examples:
        raise MirasolError(
            f"{annotations}: no row is left, {len(missing)} name missing files: is --media {media} right?"
        )
    return examples, len(missing)


def read_generic(annotations: Path, media: Path) -> tuple[list[Example], list[str]]:
    """The examples of an import, and ``file:line`` of rows without a file; nothing is written.

    Their media are named ``media/...``, below the folder ``media``.

    Raises:
        MirasolError: rows are wrong, or the file cannot be read.
    """
    return _examples(annotations, media, *_rows(annotations))


def _rows(path: Path) -> tuple[list[tuple[int, Row]], list[str]]:
    """(line, row) of every row, without empty cells, and the errors of the others."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise MirasolError(
            f"{path}: annotations are a .csv file with a header, or a .jsonl file with one object a line"
        )
    if not is_file(path):
        raise MirasolError(f"{path}: no such file: --annotations names a .csv or .jsonl file")
    wrong: list[str] = []
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    return [(line, _clean(row)) for line, row in read(path, read_text(path), wrong)], wrong


def _csv_rows(path: Path, text: str, wrong: list[str]) -> Iterator[tuple[int, Row]]:
    first = text.partition("\n")[0]
    mark = next((mark for mark in ",;\t" if mark in first), ",")
    check = functools.partial(_check_columns, f"{path}:1")
    for line, values in csv_rows(path, io.StringIO(text, newline=""), check, wrong, mark=mark):
        cells: Row = {name: cell.strip() for name, cell in values.items() if cell.strip()}
        for name in {"start", "end"} & set(cells) if mark == ";" else ():
            cells[name] = cells[name].replace(",", ".")
        for name in {"answers", "options"} & set(cells):
            cells[name] = [text.strip() for text in cells[name].split("|") if text.strip()]
        if cells:
            yield line, cells


def _json_rows(path: Path, text: str, wrong: list[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, unique=True)
            if not isinstance(row, dict):
                raise ValueError('expected one JSON object, like {"media": …, "answers": […]}')
            _check_columns(f"{path}:{number}", [*row, *(name for name in REQUIRED if name not in row)])
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
        except MirasolError as error:
            wrong.append(str(error))
        else:
            row = {name: value for name, value in row.items() if value not in (None, "")}
            if isinstance(row.get("answers"), str):
                row["answers"] = [row["answers"]]
            yield number, row


def _clean(row: Row) -> Row:
    """``row`` with its times in seconds, its path in the shortest form, and texts without invisible characters."""
    found = {name: value if name == "media" else _visible(value) for name, value in row.items()}
    if isinstance(name := found.get("media"), str) and name and not is_url(name):
        found["media"] = PurePosixPath(name).as_posix()
    for name in {"start", "end"} & set(found):
        found[name] = found[name] if (seconds := seconds_of(found[name])) is None else seconds
    return found


def _visible(value: Any) -> Any:
    if isinstance(value, list):
        return [_visible(one) for one in value]
    return value.translate(INVISIBLE).strip() if isinstance(value, str) else value


def _check_columns(where: str, names: list[str]) -> None:
    wrong, meant = [], set()
    for name in names:
        if name not in FIELDS:
            lower = str(name).strip().lower()
            near = [CALLED[lower]] if lower in CALLED else difflib.get_close_matches(lower, FIELDS, 1)
            meant.update(near)
            wrong.append(f"unknown column {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    wrong += [f"no column {name!r}" for name in REQUIRED if name not in {*names, *meant}]
    if wrong:
        raise MirasolError(f"{where}: {'; '.join(wrong)}. Columns: {', '.join(FIELDS)}")


def check_segments(path: Path, media: Path, rows: list[tuple[int, Row]]) -> None:
    """Refuse rows whose ``start`` lies past the end of their file, before anything is copied.

    Raises:
        MirasolError: each with its line and the file's seconds. Files that cannot be read are listed by the import.
    """
    from mirasol.media.probe import stated_seconds  # PyAV takes a while to load

    seconds: dict[str, float | None] = {}
    wrong = []
    for line, row in rows:
        name, start = row["media"], row.get("start")
        if start and is_file(media / name):
            if name not in seconds:
                seconds[name] = stated_seconds(media / name)
            ends = seconds[name]
            if ends is not None and start >= ends:
                wrong.append(f"{path}:{line}: start {start:g} s is past the end of {name}, which lasts {ends:.4g} s")
    if wrong:
        raise MirasolError(listing(f"{len(wrong)} row(s) start where their file has ended: correct start", wrong))


def _examples(
    path: Path, media: Path, rows: list[tuple[int, Row]], wrong: list[str]
) -> tuple[list[Example], list[str]]:
    """Examples of the rows with a file, and ``file:line`` of the others; ``wrong`` holds the errors of reading."""
    splits: dict[str, str] = {}
    stated: dict[str, int] = {}  # the line that gave a group its split
    for line, row in rows:
        group = str(row.get("group", row.get("media")))
        if "split" in row and stated.setdefault(group, line) == line:
            splits[group] = row["split"]
    chosen = _open_splits(rows, splits)
    examples: list[Example] = []
    missing: list[str] = []
    wrong = list(wrong)
    lines: dict[str, int] = {}
    there: dict[str, bool] = {}
    for number, (line, row) in enumerate(rows):
        name = row.get("media", "")
        group = str(row.get("group", name))
        values: dict[str, Any] = {
            "id": f"{path.stem}-{number:06d}",
            "start": None,
            "end": None,
            "task": "qa",
            "prompt": PROMPTS.get(str(row.get("task", "qa")), CLASSIFY_PROMPT),
            "answers": [],
            "group": group,
            "split": splits.get(group) or chosen.get(group, "train"),
            "family": "",
            "licence": "",
        } | row
        errors = [
            f"{name}: expected {SECONDS}, got {values.pop(name)!r}"
            for name in ("start", "end")
            if name in row and not isinstance(row[name], float)
        ]
        if row.get("task") == UNLABELLED and "split" not in row and values["split"] != "train":
            errors.append(
                f"a clip without texts is for training, but its group {group!r} is in {values['split']}: leave the row "
                "out, or give it another group"
            )
            values["split"] = "train"
        errors += check_example({"media": None} | values, whole=not errors)
        if str(name).startswith("/"):
            errors = [f"{e}; write it relative to --media" if e.startswith("media: ") else e for e in errors]
        if not errors and lines.setdefault(values["id"], line) != line:
            errors.append(f"id {values['id']!r} is already in line {lines[values['id']]}")
        if not errors and values["split"] != splits.setdefault(group, values["split"]):
            errors.append(
                f"group {group!r} is in the split {values['split']!r} here and in {splits[group]!r} in line "
                f"{stated[group]}: choose one"
            )
        wrong += [f"{path}:{line}: {error}" for error in errors]
        if errors:
            continue
        if name not in there:
            there[name] = is_file(media / name)
        if not there[name]:
            missing.append(f"{path}:{line}: {name}")
            continue
        examples.append(example_of(values | {"media": f"media/{name}"}))
    if wrong:
        wrong.sort(key=lambda error: int(error.removeprefix(f"{path}:").partition(":")[0]))
        raise MirasolError(listing(f"{len(wrong)} error(s) in the annotations", wrong))
    return examples, missing


def _open_splits(rows: list[tuple[int, Row]], stated: Mapping[str, str]) -> dict[str, str]:
    """The split of each group for which no row states one."""
    answers: dict[str, list[str]] = {}
    for _, row in rows:
        group = str(row.get("group", row.get("media", "")))
        if group not in stated and row.get("task") != UNLABELLED:
            texts = row.get("answers")
            answers.setdefault(group, []).extend(map(str, texts[:1] if isinstance(texts, list) else ()))
    return splits_of(answers)


PROTOCOL = open_ended.protocol(
    name="generic",
    about="open answers to the questions of any data folder, by exact match",
    source="Mirasol3B, P 4",
)
