"""Files of predictions: one JSON object a line, from this project or any other."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import atomic_write
from mirasol.data.conditions import Condition
from mirasol.data.manifest import Example

SHOWN = 5  # wrong lines, and ids, that an error names
_HALF = re.compile("[\ud800-\udfff]")  # of a pair that was cut: JSON can spell it, UTF-8 cannot
LINE = '{"id": "…", "predicted": "…" or null, "scores": {"answer": number, …} if there are any}'


@dataclass(frozen=True)
class Prediction:
    """The answer of a model to one question."""

    id: str
    predicted: str | None  # None: no answer, as for an unreadable video
    scores: Mapping[str, float] = field(default_factory=dict)  # of answers of a closed set: the larger, the better
    conditions: Mapping[str, str | None] = field(default_factory=dict)  # the stage's answers under every condition
    row: Mapping[str, Any] = field(default_factory=dict)  # the line as read

    def ranked(self) -> list[str]:
        """The answers that have a score, the best first; equal ones by name."""
        return sorted(self.scores, key=lambda answer: (-self.scores[answer], answer))


def read_predictions(path: Path) -> list[Prediction]:
    """Every line of a file of predictions.

    A line has ``id`` (or ``example_id``, as the evaluate stage writes it), ``predicted`` (a text, ``null``, or
    a mapping of conditions to texts, of which ``unchanged`` counts), optional ``scores``, and any other keys.

    Raises:
        MirasolError: the file is missing or empty, or lines are wrong or repeat an id; all at once, with counts.
    """
    found: list[Prediction] = []
    wrong: list[str] = []
    lines: dict[str, int] = {}
    again: list[str] = []
    for number, line in _lines(path):
        try:
            one = _parse(line)
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
            continue
        if lines.setdefault(one.id, number) != number:
            again.append(f"{path}:{number}: id {one.id!r} is already in line {lines[one.id]}")
        found.append(one)
    texts = []
    if wrong:
        texts.append(listing(f"{path}: {len(wrong)} line(s) are no prediction like {LINE}", wrong, SHOWN))
    if again:
        texts.append(listing(f"{path}: {len(again)} line(s) repeat an id: keep one of each", again, SHOWN))
    if texts:
        raise MirasolError("\n".join(texts))
    if not found:
        raise MirasolError(f"{path}: holds no prediction: every line is one object, {LINE}")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file: expected predictions, one object a line, {LINE}") from None
    except IsADirectoryError:
        raise MirasolError(f"{path} is a folder: name the file of predictions in it") from None
    except UnicodeDecodeError as error:
        raise MirasolError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    yield from ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def _parse(line: str) -> Prediction:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    if "\\u" in line and (half := _HALF.search(json.dumps(row, ensure_ascii=False))):
        raise ValueError(f"\\u{ord(half[0]):04x} is half a character, which no file can hold")
    name = row.get("id", row.get("example_id"))
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name:
        raise ValueError(f"id: expected a text, got {name!r}")
    if "predicted" not in row:
        raise ValueError("no key 'predicted'")
    value, conditions = row["predicted"], {}
    if isinstance(value, dict):
        if Condition.unchanged not in value or not all(v is None or isinstance(v, str) for v in value.values()):
            raise ValueError(f"predicted: expected a text for each condition, {Condition.unchanged} too, got {value!r}")
        value, conditions = value[Condition.unchanged], value
    if value is not None and not isinstance(value, str):
        raise ValueError(f"predicted: expected a text or null, got {value!r}")
    return Prediction(name, value, _scores(row.get("scores")), conditions, row)


def _scores(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(map(_is_number, value.values())):
        raise ValueError(f"scores: expected an object of answers with finite numbers, got {str(value)[:200]}")
    return {answer: float(score) for answer, score in value.items()}


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a number that fits a float."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def match(
    predictions: Sequence[Prediction],
    questions: Sequence[Example],
    *,
    benchmark: str,
    where: str,
    missing_wrong: bool = False,
) -> list[Prediction]:
    """The prediction of each question, in the order of the questions.

    Args:
        where: the file, for messages.
        missing_wrong: a question without a line counts wrong; otherwise it is an error.

    Raises:
        MirasolError: ids are unknown or missing, or lines belong to other questions; all at once.
    """
    by_id = {p.id: p for p in predictions}
    asked = {q.id: q for q in questions}
    unknown = [repr(p.id) for p in predictions if p.id not in asked]
    missing = [repr(q.id) for q in questions if q.id not in by_id]
    others = [w for p in predictions if p.id in asked and (w := _of_another(p, asked[p.id], benchmark))]
    texts = []
    if unknown:
        title = f"{where}: {len(unknown)} of {len(predictions)} ids are no question of {benchmark}"
        if len(unknown) == len(predictions):
            example = f"{unknown[0]}, where {benchmark} asks {questions[0].id!r}"
            title += f", none is: these are predictions of another benchmark or split ({example})"
        texts.append(listing(title, unknown, SHOWN))
    if missing and not missing_wrong and len(unknown) < len(predictions):
        title = (
            f"{where}: {len(missing)} of {len(questions)} questions of {benchmark} have no line: write one with "
            '"predicted": null for a video that could not be read, or let them count wrong with --missing-wrong'
        )
        texts.append(listing(title, missing, SHOWN))
    if others:
        texts.append(listing(f"{where}: {len(others)} line(s) are of another benchmark or version", others, SHOWN))
    if texts:
        raise MirasolError("\n".join(texts))
    return [by_id.get(q.id, Prediction(q.id, None)) for q in questions]


def _of_another(prediction: Prediction, question: Example, benchmark: str) -> str | None:
    """The contradiction between the line and its question, if any."""
    name, answers = prediction.row.get("benchmark", benchmark), prediction.row.get("answers")
    if name != benchmark:
        return f"{prediction.id!r}: of benchmark {name!r}, expected {benchmark!r}"
    if answers is not None and answers != list(question.answers):
        return f"{prediction.id!r}: its answers are {answers!r}, here they are {list(question.answers)!r}"
    return None


def write_predictions(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object a line with sorted keys: equal rows give equal bytes."""
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
