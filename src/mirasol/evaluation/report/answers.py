"""The sections of the report about the answers: families, conditions, right and wrong answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mirasol.data.conditions import Condition
from mirasol.evaluation.report.album import Album
from mirasol.evaluation.report.html import render
from mirasol.tasks.scoring.metrics import WITHIN
from mirasol.tasks.scoring.normalise import exact_match

if TYPE_CHECKING:  # its module needs torch
    from mirasol.evaluation.attribution.attribute import Attribution

KINDS = ("seen", "heard", "audio-visual", "order", "memory", "count")  # this order, then any other

Prediction = Mapping[str, Any]


def ordered_families(report: Mapping[str, Any]) -> list[str]:
    """Families by kind, then by name."""

    def rank(name: str) -> tuple[int, str, str]:
        kind = report["families"][name].get("kind", "")
        return (KINDS.index(kind) if kind in KINDS else len(KINDS), kind, name)

    return sorted(report["families"], key=rank)


def families_section(report: Mapping[str, Any] | None) -> str:
    """A bar per family against its chance, with its interval."""
    return render("families.html", report=report, families=ordered_families(report) if report else [])


def modalities_section(report: Mapping[str, Any] | None) -> str:
    """The same questions under every condition, and the consequence for each family."""
    judged = (cell["holds"] for row in (report or {"matters": {}})["matters"].values() for cell in row.values())
    return render(
        "modalities.html",
        report=report,
        families=ordered_families(report) if report else [],
        known=[holds for holds in judged if holds is not None],
        within=WITHIN,
    )


def is_right(prediction: Prediction, condition: str = Condition.unchanged) -> bool:
    """Whether the answer under ``condition`` is right."""
    return exact_match(prediction["predicted"].get(condition), prediction["answers"])


def choose(predictions: Sequence[Prediction], count: int, readable: Callable[[str], bool]) -> list[Prediction]:
    """Up to ``count`` predictions of different clips, wrong ones first, at most half, families in turn.

    ``readable`` decides whether the page can show the pictures of a clip; others are left out.
    """
    chosen: list[Prediction] = []
    clips: set[str] = set()

    def take(candidates: list[Prediction], limit: int) -> None:
        by_family: dict[str, list[Prediction]] = {}
        for prediction in candidates:
            by_family.setdefault(prediction["family"], []).append(prediction)
        queues = [by_family[name] for name in sorted(by_family)]
        while queues and len(chosen) < limit:
            queue = queues.pop(0)
            while queue:
                prediction = queue.pop(0)
                if prediction["clip"] not in clips and readable(prediction["clip"]):
                    clips.add(prediction["clip"])
                    chosen.append(prediction)
                    queues.append(queue)
                    break

    take([p for p in predictions if not is_right(p)], count // 2)
    take([p for p in predictions if is_right(p)], count)
    return chosen


def mistakes(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Families by their number of wrong answers: ``family``, ``count``, ``asked``, and the most frequent mistake."""
    asked = Counter(p["family"] for p in predictions)
    wrong: dict[str, Counter[tuple[str, str]]] = {}
    for p in predictions:
        if not is_right(p):
            said = p["predicted"].get(Condition.unchanged)
            pair = ("no answer" if said is None else said, p["answers"][0] if p["answers"] else "")
            wrong.setdefault(p["family"], Counter())[pair] += 1
    rows = []
    for family, pairs in wrong.items():
        said, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        rows.append({"family": family, "count": pairs.total(), "asked": asked[family], "said": said, "right": right})
    return sorted(rows, key=lambda row: (-row["count"], row["family"]))


def gallery_section(
    predictions: Sequence[Prediction],
    chosen: Sequence[Prediction],
    album: Album,
    show: int,
    looks: Mapping[str, Attribution],
    note: str,
    *,
    wrong: bool = False,
) -> str:
    """The right answers of ``chosen``, or the wrong ones, with their clips, and where the model looked.

    Args:
        looks: by example id, of those of ``chosen`` that could be explained.
        note: why the others could not.
    """
    by_clip: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_clip.setdefault(prediction["clip"], []).append(prediction)
    cards = [
        (p, [q for q in by_clip[p["clip"]] if q["example_id"] != p["example_id"]])
        for p in chosen
        if is_right(p) is not wrong
    ]
    return render(
        "gallery.html",
        predictions=predictions,
        cards=cards,
        show=show,
        wrong=wrong,
        mistakes=mistakes(predictions) if wrong else [],
        left_out=album.left_out,
        looks={n: album.looked(p["clip"], looks[n]) for p in chosen if (n := p["example_id"]) in looks},
        note=note,
        right=is_right,
        clips=album.clips,
    )
