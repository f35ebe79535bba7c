"""Predictions of anybody against the questions of a benchmark. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example, listing
from mirasol.tasks.base.protocol import Asked, Material, Protocol, cell, hash_of
from mirasol.tasks.questions import Questions, media_of
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.normalise import VERSION, normalise
from mirasol.tasks.scoring.predictions import Prediction, match, read_predictions


@dataclass(frozen=True)
class Scored:
    """The figures of a file of predictions, and its lines with what each was given."""

    report: dict[str, Any]
    rows: list[dict[str, Any]]


def score_file(
    protocol: Protocol,
    path: Path,
    questions: Questions,
    *,
    wordnet: Path | None = None,
    missing_wrong: bool = False,
    spec: EvaluateSpec | None = None,
) -> Scored:
    """Score the predictions in ``path``: see :func:`score_predictions`.

    Raises:
        MirasolError: lines are wrong, ids unknown, repeated or missing, or of another benchmark; all at once.
    """
    predictions = read_predictions(path)
    matched = match(predictions, questions.asked, benchmark=protocol.name, where=str(path), missing_wrong=missing_wrong)
    return score_predictions(protocol, matched, questions, wordnet=wordnet, spec=spec)


def score_predictions(
    protocol: Protocol,
    predictions: Sequence[Prediction],
    questions: Questions,
    *,
    wordnet: Path | None = None,
    spec: EvaluateSpec | None = None,
) -> Scored:
    """Score one prediction a question, in the order of the questions.

    Args:
        wordnet: folder of WordNet's files, where the protocol needs them; ``None``: where Debian puts them.
        spec: resamples and seed of the intervals.

    Returns:
        The report (docs/evaluation.md): ``overall`` and ``parts``, each a cell with the headline figure; what the
        protocol puts beside it; ``questions`` and ``classes`` with numbers and hashes; and ``missing``, the media
        without an answer, whose questions count wrong. And the lines for `mirasol compare`.

    Raises:
        MirasolError: two classes are equal when normalised, or files that the protocol needs are not there.
    """
    spec = spec or EvaluateSpec()
    classes = _classes(protocol, questions)
    _check_classes(classes)
    material = _material(questions, wordnet, spec)
    credit = protocol.judge(material)
    rows = [Asked(q, p, credit(q, p)) for q, p in zip(questions.asked, predictions, strict=True)]
    parts: dict[str, list[Asked]] = {}
    for row in rows:
        for name in protocol.parts(row.question):
            parts.setdefault(name, []).append(row)
    report = {
        "benchmark": protocol.name,
        "source": protocol.source,
        "split": questions.split,
        "metric": protocol.metric,
        "normaliser": VERSION,
        "overall": cell(rows, protocol.metric, material),
        "parts": {name: cell(parts[name], protocol.metric, material) for name in sorted(parts)},
        **protocol.more(rows, material),
        "questions": {
            "n": len(rows),
            "split": questions.published,
            "published": protocol.published.get(questions.published or ""),
            "sha256": hash_of(q.id for q in questions.asked),
        },
        "missing": media_of([r.question for r in rows if r.prediction.predicted is None]),
    }
    if classes:
        report["classes"] = {"n": len(classes), "published": protocol.classes, "sha256": hash_of(classes)}
    return Scored(report, [_line(protocol.name, row) for row in rows])


def check_material(protocol: Protocol, questions: Questions, wordnet: Path | None = None) -> None:
    """Raise :class:`MirasolError` for what would end the scoring after a long evaluation: files that the protocol needs
    are not there, or two classes are equal when normalised."""
    _check_classes(_classes(protocol, questions))
    protocol.judge(_material(questions, wordnet, EvaluateSpec()))


def _material(questions: Questions, wordnet: Path | None, spec: EvaluateSpec) -> Material:
    folder = wordnet or Material.wordnet
    return Material((questions.folder,), folder, questions.train, spec.resamples, spec.seed)


def _classes(protocol: Protocol, questions: Questions) -> list[str]:
    """The names of the classes, of a set of classes."""
    return sorted({e.answers[0] for e in (*questions.asked, *questions.train)}) if protocol.closed == "classes" else []


def _check_classes(classes: Sequence[str]) -> None:
    """Raise if an answer could be right for two classes."""
    first: dict[str, str] = {}
    same = [f"{name!r} and {first[n]!r}" for name in classes if first.setdefault(n := normalise(name), name) != name]
    if same:
        raise MirasolError(listing(f"{len(same)} pair(s) of classes are equal when normalised", same, 5))


def _line(benchmark: str, row: Asked) -> dict[str, Any]:
    """The line of a scored prediction: a prediction like any other, with all that a comparison needs."""
    question: Example = row.question
    line = {
        "benchmark": benchmark,
        "id": question.id,
        "group": question.group,
        "family": question.family,
        "prompt": question.prompt,
        "answers": list(question.answers),
        "predicted": row.prediction.predicted,
        "score": round(row.credit, 9),
    }
    return line | ({"scores": dict(row.prediction.scores)} if row.prediction.scores else {})
