"""`mirasol evaluate`, `score` and `compare`: weights to predictions, predictions to figures, figures side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirasol.cli.console import note, table
from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.data.conditions import Condition
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.paths import CACHE, DATA, SHARDS, TOKENIZER
from mirasol.tasks.questions import questions_of
from mirasol.tasks.registry import protocol_of
from mirasol.tasks.score import Scored, check_material, score_file, score_predictions
from mirasol.tasks.scoring.compare import compare as run_compare
from mirasol.tasks.scoring.predictions import write_predictions

SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
FEW = 60  # source videos, below which a bootstrap over them is a little short
SHOWN_PARTS = 50  # in the table; scores.json has all
Row = tuple[str, ...]


def evaluate(benchmark: str, split: str | None, weights: Path, data: Path, out: Path, wordnet: Path) -> None:
    """Write ``out/scores.json`` and ``out/predictions.jsonl``, and print the figures."""
    if benchmark == "world":
        _conditions(split or "val", weights, data, out)
        return
    protocol = protocol_of(benchmark)
    questions = questions_of(protocol, data=data, split=split)
    from mirasol.evaluation.evaluate import Evaluator  # torch: not for what can be refused without it

    params = load_params()
    check_material(protocol, questions, wordnet)  # before hours of answering
    evaluator = Evaluator(weights, SHARDS, TOKENIZER, params.evaluate, params.training, CACHE)
    predictions, missing = evaluator.predict(questions.asked, protocol.closed, questions.train)
    scored = score_predictions(protocol, predictions, questions, wordnet=wordnet, spec=params.evaluate)
    scored.report["missing"] = missing
    _finish(scored, out, "data folder")


def score(
    benchmark: str,
    predictions: Path,
    annotations: Path | None,
    data: Path | None,
    split: str | None,
    wordnet: Path,
    missing_wrong: bool,
    out: Path | None,
) -> None:
    """Print the figures of ``predictions``, and write them and the scored lines to ``out``."""
    protocol = protocol_of(benchmark)
    given = data if annotations or data else DATA
    questions = questions_of(protocol, annotations=annotations, data=given, split=split)
    scored = score_file(protocol, predictions, questions, wordnet=wordnet, missing_wrong=missing_wrong)
    _finish(scored, out, "files" if annotations else "data folder")


def compare(files: Sequence[Path], runs: int, out: Path | None) -> None:
    """Print the differences between ``files``, and write them to ``out``."""
    report = run_compare(files, runs=runs)
    rows: list[Row] = [("benchmark", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "over", "n", "videos")]
    for one in report["comparisons"]:
        means = [sum(one[side]["scores"]) / len(one[side]["scores"]) for side in ("a", "b")]
        names = (one["benchmark"], *(f"{value:.4f}" for value in means))
        tests = (f"{one['p']:.4f}", f"{one['p_holm']:.4f}")
        rows.append((*names, *_difference(one), *tests, "questions", f"{one['questions']:,}", f"{one['groups']:,}"))
        for over in ("seeds", "both"):
            if one[over]:
                rows.append(("", "", "", *_difference(one[over]), "", "", over, "", ""))
        if one["mcnemar"]:
            test = one["mcnemar"]
            label = f"right alone: A {test['only_a']:,}, B {test['only_b']:,}"
            rows.append(("", "", "", "", label, f"{test['p']:.4f}", "", "McNemar", "", ""))
    table(rows, right=(1, 2, 3, 5, 6, 8, 9))
    _note_few(min(one["groups"] for one in report["comparisons"]))
    if out:
        write_json(out, report)
        print(out)


def _difference(part: Mapping[str, Any]) -> Row:
    low, high = part["ci95"]
    return f"{part['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}"


def _finish(scored: Scored, out: Path | None, source: str) -> None:
    """``source`` of the questions: the set's own ``files``, or a ``data folder``."""
    report = scored.report
    _print(report)
    _notes(report, source)
    if out:
        write_predictions(out / PREDICTIONS, scored.rows)
        write_json(out / SCORES, report)
        print(out / SCORES)


def _print(report: Mapping[str, Any]) -> None:
    """The headline, its parts, what stands beside it, and what was asked."""
    metric, asked = report["metric"], report["questions"]
    rows: list[Row] = [(f"{report['benchmark']} {report['split']}", metric, "95 % interval", "n")]
    for name, cell in (("overall", report["overall"]), *list(report["parts"].items())[:SHOWN_PARTS]):
        low, high = cell["ci95"]
        rows.append((name, f"{cell[metric]:.4f}", f"{low:.4f} to {high:.4f}", f"{cell['n']:,}"))
    table(rows, right=(1, 3))
    if len(report["parts"]) > SHOWN_PARTS:
        print(f"… and {len(report['parts']) - SHOWN_PARTS} more")
    for name, value in _beside(report):
        print(f"{name}: {value}")
    of = f" of {asked['published']:,} published" if asked["published"] else ""
    videos = _number(report["overall"]["groups"], "source video")
    print(f"questions: {asked['n']:,}{of}, on {videos}, ids {asked['sha256'][:16]}")
    if "classes" in report:
        classes = report["classes"]
        of = f" of {classes['published']} published" if classes["published"] else ""
        print(f"classes: {classes['n']}{of}, list {classes['sha256'][:16]}")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _notes(report: Mapping[str, Any], source: str) -> None:
    """What the reader of the figures must know of them."""
    asked, missing = report["questions"], report["missing"]
    if missing:
        lost = sum(m["questions"] for m in missing)
        names = ", ".join(m["media"] for m in missing[:3]) + (", …" if missing[3:] else "")
        note(f"without an answer, and so wrong: {_number(lost, 'question')} on {len(missing):,} media: {names}")
    if asked["published"] and asked["n"] != asked["published"]:
        text = f"{asked['published']:,} questions were published, these files have {asked['n']:,}"
        if source != "files" and asked["n"] < asked["published"]:
            text = (
                f"{asked['published'] - asked['n']:,} published questions were not asked: the figure of all is that of "
                f"`mirasol score {report['benchmark']} … --annotations FOLDER --split {asked['split']} --missing-wrong`"
            )
        note(text)
    _note_few(report["overall"]["groups"])


def _note_few(groups: int) -> None:
    if groups < FEW:
        videos = _number(groups, "source video")
        note(f"{videos}: with fewer than about {FEW}, read intervals as too short (decision 0014)")


def _beside(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The protocol's own figures, those of an object each by its name."""
    known = {"benchmark", "source", "split", "metric", "normaliser", "overall", "parts", "questions", "missing"}
    found: list[tuple[str, str]] = []
    for name, value in report.items():
        if name in known | {"classes", "report"} or value is None:
            continue
        if isinstance(value, dict):
            inner = [(key, v) for key, v in value.items() if v is not None]
            found += [(f"{name} {key}", _short(v)) for key, v in inner]
        else:
            found.append((name, _short(value)))
    return found


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(v)}" for key, v in value.items())
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def _conditions(split: str, weights: Path, data: Path, out: Path) -> None:
    """The built-in world: families by condition, chance beside them."""
    if split not in ("val", "test"):
        raise MirasolError(f"--split {split}: expected val or test")
    from mirasol.evaluation.evaluate import Evaluator

    params = load_params()
    spec = dataclasses.replace(params.evaluate, split=split)
    report = Evaluator(weights, SHARDS, TOKENIZER, spec, params.training, CACHE).evaluate(data, out)
    write_json(out / SCORES, report)
    conditions = list(Condition)[1:]
    rows: list[Row] = [("", "exact match", "95 % interval", "chance", *conditions, "n")]
    for name in ("overall", *report["families"]):
        full, *others = (_cell(part, name) for part in (report, *(report[c] for c in conditions)))
        low, high = full["ci95"]
        right, *left = (f"{cell['exact_match']:.3f}" for cell in (full, *others))
        interval, chance = f"{low:.3f} to {high:.3f}", f"{full['chance']:.3f}"
        rows.append((name, right, interval, chance, *left, f"{full['n']:,}"))
    table(rows, right=tuple(range(1, 9)))
    print(out / SCORES)


def _cell(part: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = part["overall"] if name == "overall" else part["families"][name]
    return found
