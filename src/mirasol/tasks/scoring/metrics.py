"""From per-question predictions to the figures of ``reports/eval.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.conditions import Condition
from mirasol.tasks.scoring.matters import Share, judge
from mirasol.tasks.scoring.normalise import VERSION, exact_match, exact_match_raw, normalise
from mirasol.tasks.scoring.statistics import cluster_bootstrap

#: What the model is given: the clip itself, without its sound, without its picture, with another clip's sound, with
#: its chunks in another order.
CONDITIONS = tuple(Condition)
NOVEL = "novel-"  # how the group of a combination never seen in training begins
# The best that a guesser can do: another clip's sound tells as much about this clip as silence does.
_CHANCE_OF = {"unchanged": "chance", "muted": "muted", "blanked": "blanked", "swapped": "muted", "shuffled": "shuffled"}


@dataclass(frozen=True)
class Constant:
    """The best guesser that sees the prompt only, learnt on the training split."""

    answers: Mapping[str, str]  # prompt -> the answer most often right
    fallback: str  # for a prompt that training never asked

    @classmethod
    def learn(cls, examples: Iterable[tuple[str, Sequence[str]]]) -> Constant:
        """From (prompt, answers) pairs; ties go to the first answer in the alphabet."""
        by_prompt: dict[str, Counter[str]] = {}
        overall: Counter[str] = Counter()
        for prompt, answers in examples:
            right = {normalise(answer) for answer in answers}
            by_prompt.setdefault(prompt, Counter()).update(right)
            overall.update(right)
        return cls({prompt: _most(counts) for prompt, counts in by_prompt.items()}, _most(overall))

    def __call__(self, prompt: str) -> str:
        return self.answers.get(prompt, self.fallback)


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")


def score(
    predictions: Sequence[Mapping[str, Any]],
    families: Mapping[str, Mapping[str, Any]],
    constant: Constant,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Score predictions under every condition.

    Args:
        predictions: one mapping per question with ``clip``, ``group``, ``family``, ``prompt``, ``answers`` and
            ``predicted`` (condition -> text, or ``None`` where the clip could not be read: counted wrong).
        families: what ``data/families.json`` knows of a family (``chance``, ``muted``, ``blanked``, ``shuffled``:
            the best that can be done by guessing, without sound, without picture, without the order of chunks;
            ``kind``). What it does not name gets the score of ``constant``.
        constant: the guesser that sees the prompt only.
        resamples, seed: of the bootstrap over groups.

    Returns:
        ``overall``, ``families`` (by name) and ``novel`` (``None`` without such groups), each a cell of
        ``exact_match``, ``exact_match_raw``, ``chance``, ``ci95``, ``n``, ``clips``; the same three under
        ``muted``, ``blanked``, ``swapped`` and ``shuffled``; and ``matters``, what each family needs.

    Raises:
        ValueError: there is no prediction.
    """
    if not predictions:
        raise ValueError("a score needs at least 1 prediction, got 0")
    report: dict[str, Any] = {"normaliser": VERSION}
    for condition in CONDITIONS:
        marked = [_mark(p, condition, families, constant) for p in predictions]
        part = _part(marked, families, lambda rows: _cell(rows, resamples, seed))
        if condition == Condition.unchanged:
            report.update(part)
        else:
            report[condition] = part
    report["matters"] = _matters(report, families)
    return report


@dataclass(frozen=True)
class _Marked:
    clip: str
    group: str
    family: str
    right: bool
    right_raw: bool
    chance: float


def _mark(
    prediction: Mapping[str, Any], condition: str, families: Mapping[str, Mapping[str, Any]], constant: Constant
) -> _Marked:
    answers, predicted = prediction["answers"], prediction["predicted"].get(condition)
    known = families.get(prediction["family"], {}).get(_CHANCE_OF[condition])
    chance = float(exact_match(constant(prediction["prompt"]), answers)) if known is None else float(known)
    return _Marked(
        prediction["clip"],
        prediction["group"],
        prediction["family"],
        exact_match(predicted, answers),
        exact_match_raw(predicted, answers),
        chance,
    )


def _part(
    marked: Sequence[_Marked],
    families: Mapping[str, Mapping[str, Any]],
    cell: Callable[[Sequence[_Marked]], dict[str, Any]],
) -> dict[str, Any]:
    novel = [m for m in marked if m.group.startswith(NOVEL)]
    by_family: dict[str, dict[str, Any]] = {}
    for name in sorted({m.family for m in marked if m.family}):
        by_family[name] = cell([m for m in marked if m.family == name])
        for key in ("kind", "needs"):
            if key in families.get(name, {}):
                by_family[name][key] = families[name][key]
    return {"overall": cell(marked), "families": by_family, "novel": cell(novel) if novel else None}


def _cell(rows: Sequence[_Marked], resamples: int, seed: int) -> dict[str, Any]:
    n = len(rows)
    interval = cluster_bootstrap([r.right for r in rows], [r.group for r in rows], resamples=resamples, seed=seed)
    return {
        "exact_match": round(sum(r.right for r in rows) / n, 6),
        "exact_match_raw": round(sum(r.right_raw for r in rows) / n, 6),
        "chance": round(sum(r.chance for r in rows) / n, 6),
        "ci95": [round(end, 6) for end in interval],
        "n": n,
        "clips": len({r.clip for r in rows}),
    }


def _matters(
    report: Mapping[str, Any], families: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Family -> condition -> its score there, and what that says: :func:`mirasol.tasks.scoring.matters.judge`."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, full in report["families"].items():
        known = families.get(name, {})
        found[name] = {}
        for condition in CONDITIONS[1:]:
            cell = report[condition]["families"][name]
            finding = judge(_share(full, "chance" in known), _share(cell, _CHANCE_OF[condition] in known))
            kept = {key: cell[key] for key in ("exact_match", "ci95", "chance")}
            found[name][condition] = kept | finding._asdict()
    return found


def _share(cell: Mapping[str, Any], known: bool) -> Share:
    """A cell as it is judged; a chance that was measured is none that a family must fall to."""
    return Share(cell["exact_match"], cell["ci95"][0], cell["chance"] if known else None)


def read_families(data: Path) -> dict[str, dict[str, Any]]:
    """``families.json`` of a data folder, empty without one.

    Raises:
        MirasolError: the file is not a mapping of names to mappings, or a chance in it is no share.
    """
    path = data / "families.json"
    if not path.is_file():
        return {}
    try:
        families = json.loads(path.read_text(encoding="utf-8"))
        for name, family in families.items():
            for key in ("chance", "muted", "blanked", "shuffled"):
                if not 0 <= family.get(key, 0) <= 1:
                    raise ValueError(f"{name}.{key} is {family[key]!r}, expected 0 to 1")
    except (ValueError, TypeError, AttributeError) as error:
        raise MirasolError(
            f'{path}: expected {{"family": {{"kind": …, "needs": […], "chance": 0 to 1, "muted": …, "blanked": …, '
            f'"shuffled": …}}}}: {error}. Mend it, or delete it to measure chance by the best constant answer'
        ) from error
    return dict(families)
