"""From predictions under every condition to the figures of ``reports/eval.json``.

Besides scores: the modality ablation (``matters`` in the report), whether a question family falls when its clips lose
sound, picture or the order of time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mirasol.core.errors import MirasolError
from mirasol.data.conditions import Condition
from mirasol.tasks.scoring.normalise import VERSION, exact_match, exact_match_raw, normalise

NOVEL = "novel-"  # start of the group of a combination never seen in training
WITHIN = 0.02  # by how much a family may move that does not need the part taken away
FALLS, STAYS, NEITHER = "falls to chance", f"stays within {100 * WITHIN:.0f} points", "neither"
CHANGED = tuple(Condition)[1:]
# The key in families.json for the best result by guessing: another clip's sound helps as little as silence.
_CHANCE_OF = {c: c.value for c in Condition} | {Condition.unchanged: "chance", Condition.swapped: "muted"}

Families = Mapping[str, Mapping[str, Any]]


class Share(NamedTuple):
    """A family's share of right answers under a condition."""

    mean: float
    low: float  # lower end of its 95 % interval
    chance: float | None  # the best result by guessing under this condition, if known


class Finding(NamedTuple):
    """The result for a family: ``FALLS``, ``STAYS`` or ``NEITHER``; ``None`` twice if it cannot be judged."""

    found: str | None
    holds: bool | None  # whether this is the required result


@dataclass(frozen=True)
class Constant:
    """The best guesser that sees the prompt only, learnt on the training split."""

    answers: Mapping[str, str]  # prompt -> the answer most often right
    fallback: str  # for a prompt that training never asked
    shares: Mapping[str, float] = field(default_factory=dict)  # prompt -> the share of training rows that it answers
    overall: float = 0.0  # the same of the fallback, over all prompts

    @classmethod
    def learn(cls, examples: Iterable[tuple[str, Sequence[str]]]) -> Constant:
        """From (prompt, answers) pairs; ties go to the first answer in the alphabet."""
        by_prompt: dict[str, Counter[str]] = {}
        overall: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        for prompt, answers in examples:
            right = {normalise(answer) for answer in answers}
            by_prompt.setdefault(prompt, Counter()).update(right)
            overall.update(right)
            asked[prompt] += 1
        best, fallback = {prompt: _most(counts) for prompt, counts in by_prompt.items()}, _most(overall)
        shares = {prompt: counts[best[prompt]] / asked[prompt] for prompt, counts in by_prompt.items()}
        return cls(best, fallback, shares, overall[fallback] / max(1, asked.total()))

    def chance(self, prompt: str) -> float:
        """The chance of a question: the share of its training rows that its most frequent answer gets right."""
        return self.shares.get(prompt, self.overall)

    def __call__(self, prompt: str) -> str:
        return self.answers.get(prompt, self.fallback)


@dataclass(frozen=True)
class _Marked:
    clip: str
    group: str
    family: str
    right: bool
    right_raw: bool
    chance: float


def score(
    predictions: Sequence[Mapping[str, Any]], families: Families, constant: Constant, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Score predictions under every condition.

    Args:
        predictions: one mapping per question with ``clip``, ``group``, ``family``, ``prompt``, ``answers`` and
            ``predicted`` (condition -> text, or ``None`` for an unreadable clip: counted wrong).
        families: the families in ``data/families.json`` (``chance``, ``muted``, ``blanked``, ``shuffled``: the best
            result by guessing, without sound, without picture, without the order of chunks; ``kind``). Figures that
            it lacks are the chance by ``constant``.
        constant: the guesser that sees the prompt only.
        resamples: of the bootstrap over groups.
        seed: of the bootstrap.

    Returns:
        ``overall``, ``families`` (by name) and ``novel`` (``None`` without such groups), each a cell of
        ``exact_match``, ``exact_match_raw``, ``chance``, ``ci95``, ``n``, ``clips``; the same three under
        ``muted``, ``blanked``, ``swapped`` and ``shuffled``; and ``matters``, the needs of each family.

    Raises:
        ValueError: no prediction.
    """
    if not predictions:
        raise ValueError("a score needs at least 1 prediction, got 0")
    report: dict[str, Any] = {"normaliser": VERSION}
    for condition in Condition:
        marked = [_mark(p, condition, families, constant) for p in predictions]
        part = _part(marked, families, lambda rows: _cell(rows, resamples, seed))
        if condition is Condition.unchanged:
            report.update(part)
        else:
            report[condition.value] = part
    report["matters"] = _modality_ablation(report, families)
    return report


def judge(unchanged: Share, left: Share) -> Finding:
    """Whether a family falls from ``unchanged`` to ``left`` as it must.

    A family needs the part taken away if even the best guesser errs without it: ``left.chance`` is below 1. It must
    then fall to that chance: its interval contains it or lies below. Any other must stay within ``WITHIN``. A family
    that the model answers no better than chance proves nothing, nor does one with an unknown chance.
    """
    if unchanged.chance is None or left.chance is None or unchanged.low <= unchanged.chance:
        return Finding(None, None)
    needed = left.chance < 1
    if needed and left.low <= left.chance:
        return Finding(FALLS, True)
    stays = abs(left.mean - unchanged.mean) <= WITHIN
    return Finding(STAYS if stays else NEITHER, stays and not needed)


def read_families(data: Path) -> dict[str, dict[str, Any]]:
    """``families.json`` of a data folder, empty without one.

    Raises:
        MirasolError: the file is not a mapping of names to mappings, or a chance in it is not between 0 and 1.
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
            f'"shuffled": …}}}}: {error}. Correct it, or delete it to measure chance by the best constant answer'
        ) from error
    return dict(families)


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")


def _mark(prediction: Mapping[str, Any], condition: Condition, families: Families, constant: Constant) -> _Marked:
    answers, predicted = prediction["answers"], prediction["predicted"].get(condition)
    known = families.get(prediction["family"], {}).get(_CHANCE_OF[condition])
    return _Marked(
        prediction["clip"],
        prediction["group"],
        prediction["family"],
        exact_match(predicted, answers),
        exact_match_raw(predicted, answers),
        constant.chance(prediction["prompt"]) if known is None else known,
    )


def _part(
    marked: Sequence[_Marked], families: Families, cell: Callable[[Sequence[_Marked]], dict[str, Any]]
) -> dict[str, Any]:
    novel = [m for m in marked if m.group.startswith(NOVEL)]
    by_family: dict[str, dict[str, Any]] = {}
    for name in sorted({m.family for m in marked if m.family}):
        known = families.get(name, {})
        by_family[name] = cell([m for m in marked if m.family == name])
        by_family[name] |= {key: known[key] for key in ("kind", "needs") if key in known}
    return {"overall": cell(marked), "families": by_family, "novel": cell(novel) if novel else None}


def _cell(rows: Sequence[_Marked], resamples: int, seed: int) -> dict[str, Any]:
    from mirasol.tasks.scoring.statistics import cluster_bootstrap  # numpy: not for `mirasol --help`

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


def _modality_ablation(report: Mapping[str, Any], families: Families) -> dict[str, dict[str, dict[str, Any]]]:
    """Family -> condition -> its score under this condition, and the finding of :func:`judge`."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, unchanged in report["families"].items():
        known = families.get(name, {})
        found[name] = {}
        for condition in CHANGED:
            cell = report[condition]["families"][name]
            finding = judge(_share(unchanged, "chance" in known), _share(cell, _CHANCE_OF[condition] in known))
            kept = {key: cell[key] for key in ("exact_match", "ci95", "chance")}
            found[name][condition.value] = kept | finding._asdict()
    return found


def _share(cell: Mapping[str, Any], known: bool) -> Share:
    """A cell for :func:`judge`; a family need not fall to a chance that was only measured."""
    return Share(cell["exact_match"], cell["ci95"][0], cell["chance"] if known else None)
