"""Compares files of scored predictions: differences with intervals, over questions and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError, listing
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.normalise import exact_match
from mirasol.tasks.scoring.predictions import SHOWN, Prediction, read_predictions
from mirasol.tasks.scoring.statistics import Interval, Paired, compare_runs, holm, mcnemar

UNIT = 10**9  # parts of a credit: the rounding of a line's score
DIGITS = 6
USUAL = "predictions"  # .jsonl, the file of `mirasol evaluate` and `score --out`: this name is no benchmark


def compare(files: Sequence[Path], *, runs: int = 1, spec: EvaluateSpec | None = None) -> dict[str, Any]:
    """Compare the first ``runs`` files with each next ``runs`` ones.

    Args:
        files: predictions with their references, as written by `mirasol evaluate`, `mirasol score --out` and the
            evaluate stage; or folders of such files, one a benchmark, paired by name.
        runs: consecutive files that are runs of one recipe with different seeds.
        spec: resamples and seed of the intervals.

    Returns:
        ``comparisons``, one for each benchmark and each recipe after the first: ``a`` and ``b`` (files and scores),
        ``difference`` (B minus A), ``ci95``, ``p`` and ``p_holm`` (adjusted for all comparisons) over questions;
        ``mcnemar`` (of single runs with right and wrong answers); with several runs ``seeds`` and ``both``, the
        intervals over other seeds, and over other seeds and other questions.

    Raises:
        MirasolError: files do not pair up, lines lack keys, or the questions differ; all at once.
    """
    recipes = _recipes(files, runs)
    spec = spec or EvaluateSpec()
    first, *others = recipes
    found = []
    for benchmark in first:
        tables = [[_Table(path) for path in recipe[benchmark]] for recipe in recipes]
        _check_questions([table for recipe in tables for table in recipe])
        for b in tables[1:]:
            found.append(_comparison(benchmark, tables[0], b, spec))
    for one, p in zip(found, holm([one["p"] for one in found]), strict=True):
        one["p_holm"] = round(p, DIGITS)
    return {"runs": runs, "recipes": 1 + len(others), "comparisons": found}


def _recipes(files: Sequence[Path], runs: int) -> list[dict[str, list[Path]]]:
    """For each recipe the files of its runs, by benchmark."""
    if runs < 1 or len(files) < 2 * runs or len(files) % runs:
        raise MirasolError(
            f"{len(files)} file(s) with --runs {runs}: expected the {runs} of A, then the {runs} of B, and so on"
        )
    folders = [path for path in files if path.is_dir()]
    if folders and len(folders) < len(files):
        raise MirasolError(f"{folders[0]} is a folder and others are files: name folders alone, or files alone")
    if not folders:
        return [{"": list(files[i : i + runs])} for i in range(0, len(files), runs)]
    names = [sorted(path.name for path in folder.glob("*.jsonl")) for folder in folders]
    if not names[0] or any(found != names[0] for found in names):
        texts = [f"{folder}: {', '.join(found) or 'none'}" for folder, found in zip(folders, names, strict=True)]
        raise MirasolError(listing("the folders do not hold predictions (*.jsonl) of the same names", texts, 10))
    return [
        {name.removesuffix(".jsonl"): [folder / name for folder in folders[i : i + runs]] for name in names[0]}
        for i in range(0, len(folders), runs)
    ]


class _Table:
    """The credits of a file, by question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = sorted(read_predictions(path), key=lambda p: p.id)
        self.ids = [p.id for p in lines]
        lacking = [f"{p.id!r}: {wrong}" for p in lines if (wrong := _lacking(p.row))]
        if lacking:
            title = (
                f"{path}: {len(lacking)} line(s) cannot be compared: score the file first, `mirasol score BENCHMARK "
                f"{path} … --out FOLDER`, and compare what that writes"
            )
            raise MirasolError(listing(title, lacking, SHOWN))
        self.groups = [str(p.row["group"]) for p in lines]
        self.benchmarks = {str(p.row["benchmark"]) for p in lines if "benchmark" in p.row}
        self.answers = [p.row.get("answers") for p in lines]
        self.credits: NDArray[np.int64] = np.array([_credit(p) for p in lines], np.int64)

    @property
    def score(self) -> float:
        return round(int(self.credits.sum()) / UNIT / len(self.credits), DIGITS)


def _lacking(row: Mapping[str, Any]) -> str | None:
    """The key that a line lacks or has wrong."""
    if not isinstance(row.get("group"), str):
        return "no 'group', the source video"
    score, answers = row.get("score"), row.get("answers")
    if score is not None:
        good = isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1
        return None if good else f"score: expected 0 to 1, got {score!r}"
    good = isinstance(answers, list) and bool(answers) and all(isinstance(a, str) for a in answers)
    return None if good else "neither 'score' nor 'answers'"


def _credit(prediction: Prediction) -> int:
    score = prediction.row.get("score")
    if score is None:
        return UNIT * exact_match(prediction.predicted, prediction.row["answers"])
    credit: int = round(score * UNIT)
    return credit


def _check_questions(tables: Sequence[_Table]) -> None:
    """Raise unless all files answer the same questions."""
    first = tables[0]
    texts = []
    for table in tables[1:]:
        if first.benchmarks | table.benchmarks and first.benchmarks != table.benchmarks:
            names = [" and ".join(sorted(t.benchmarks)) or "no benchmark named" for t in (first, table)]
            texts.append(f"{table.path} is of another benchmark: {names[1]}, {first.path} is of {names[0]}")
        for one, other in ((first, table), (table, first)):
            lost = sorted(set(one.ids) - set(other.ids))
            if lost:
                title = f"{len(lost)} of {len(one.ids)} questions of {one.path} are not in {other.path}"
                texts.append(listing(title, [repr(name) for name in lost], SHOWN))
        if first.ids == table.ids:
            pairs = zip(first.ids, first.groups, table.groups, first.answers, table.answers, strict=True)
            apart = [repr(name) for name, g, h, a, b in pairs if g != h or (a is not None and b is not None and a != b)]
            if apart:
                title = f"{len(apart)} questions of {first.path} and {table.path} have other answers or groups"
                texts.append(listing(title, apart, SHOWN))
    if texts:
        raise MirasolError("\n".join(texts))


def _comparison(benchmark: str, a: Sequence[_Table], b: Sequence[_Table], spec: EvaluateSpec) -> dict[str, Any]:
    groups = a[0].groups
    of_a, of_b = (np.stack([table.credits for table in side]) for side in (a, b))
    found = compare_runs(of_a, of_b, groups, resamples=spec.resamples, seed=spec.seed, unit=UNIT)
    of_lines = " and ".join(sorted(a[0].benchmarks))
    return {
        "benchmark": of_lines or benchmark if benchmark in ("", USUAL) else benchmark,
        "a": {"files": [str(t.path) for t in a], "scores": [t.score for t in a]},
        "b": {"files": [str(t.path) for t in b], "scores": [t.score for t in b]},
        "questions": len(groups),
        "groups": len(set(groups)),
        **_rounded(found.questions),
        "seeds": found.seeds and _rounded(found.seeds),
        "both": found.both and _rounded(found.both),
        "mcnemar": _mcnemar(of_a, of_b) if len(a) == len(b) == 1 else None,
    }


def _rounded(part: Paired | Interval) -> dict[str, Any]:
    values = {"ci95" if name == "interval" else name: value for name, value in vars(part).items()}
    return {k: [round(e, DIGITS) for e in v] if isinstance(v, tuple) else round(v, DIGITS) for k, v in values.items()}


def _mcnemar(a: NDArray[np.int64], b: NDArray[np.int64]) -> dict[str, Any] | None:
    """The exact test on right and wrong answers; ``None`` if credits are fractions."""
    if not np.isin(np.stack([a, b]), (0, UNIT)).all():
        return None
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    return {"only_a": only_a, "only_b": only_b, "p": round(mcnemar(only_a, only_b), DIGITS)}
