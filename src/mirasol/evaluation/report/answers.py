"""The sections of the report about the answers: families, what was taken away, right and wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mirasol.data.conditions import Condition
from mirasol.evaluation.report.html import Album, chips, interval, missing, percent, section, text, title
from mirasol.evaluation.report.project import Looked
from mirasol.evaluation.report.sections import gauge
from mirasol.tasks.scoring.matters import WITHIN
from mirasol.tasks.scoring.metrics import CONDITIONS
from mirasol.tasks.scoring.normalise import exact_match

CONDITION_WORDS = {
    "unchanged": "clip as it is",
    "muted": "sound muted",
    "blanked": "picture blanked",
    "swapped": "another clip's sound",
    "shuffled": "chunks shuffled",
}
SHORT_WORDS = {"muted": "muted", "blanked": "blanked", "swapped": "other sound", "shuffled": "shuffled"}
KINDS = ("seen", "heard", "audio-visual", "order", "memory", "count")  # this order, then any other

LOOKED_LEGEND = (
    '<p class="legend"><span><i class="bar-attention"></i>attention over the chunks while it wrote the '
    'answer</span><span><i class="bar-counted"></i>what counted (gradient times feature), also the glow over '
    "frames and sound, the rest is dimmed</span><span>Means over the tokens of the answer. A reading, no proof."
    "</span></p>"
)
LOOKED_COMMAND = "By hand: <code>mirasol explain CLIP QUESTION</code>"

Prediction = Mapping[str, Any]


def ordered_families(report: Mapping[str, Any]) -> list[str]:
    """Families by kind, then by name."""

    def rank(name: str) -> tuple[int, str, str]:
        kind = report["families"][name].get("kind", "")
        return (KINDS.index(kind) if kind in KINDS else len(KINDS), kind, name)

    return sorted(report["families"], key=rank)


def families_section(report: Mapping[str, Any] | None) -> str:
    """A bar per family against its chance, with its interval."""
    heading = "What it can answer"
    if report is None:
        return section("families", heading, "", missing("Scores per family", "dvc repro evaluate"))
    rows = [("All questions", "", report["overall"])]
    if report.get("novel"):
        rows.append(("Never-seen combinations", "", report["novel"]))
    for name in ordered_families(report):
        cell = report["families"][name]
        rows.append((name.replace("_", " ").replace("-", " "), cell.get("kind", ""), cell))
    body = "".join(
        f'<div class="bar{" total" if i < len(rows) - len(report["families"]) else ""}">'
        f'<span class="name">{text(name)}<small>{text(kind)}</small></span>{gauge(cell)}'
        f'<b>{percent(cell["exact_match"])}</b><small class="ci">{interval(cell)}</small></div>'
        for i, (name, kind, cell) in enumerate(rows)
    )
    legend = (
        '<p class="legend"><span><i class="fill"></i>exact match</span>'
        '<span><i class="range"></i>95 % interval over source videos</span>'
        '<span><i class="mark"></i>chance</span></p>'
    )
    return section("families", heading, "", f'<div class="card bars">{legend}{body}</div>')


def modalities_section(report: Mapping[str, Any] | None) -> str:
    """The same questions with sound, picture or the order of time taken away, and what that says of each family."""
    heading = "Does it really look and listen?"
    if report is None:
        body = missing("Scores without sound or picture", "dvc repro evaluate")
        return section("modalities", heading, "", body)
    judged = report["matters"]
    head = "".join(f'<th scope="col">{text(CONDITION_WORDS[c])}</th>' for c in CONDITIONS)
    rows = []
    for name in ordered_families(report):
        needs = report["families"][name].get("needs")
        uses = f"<small>{text(' + '.join(needs))}</small>" if needs else ""
        cells = [_heat(report["families"][name], None, False)]
        for condition in CONDITIONS[1:]:
            cell = report[condition]["families"][name]
            cells.append(_heat(cell, judged[name][condition]["holds"], needs is not None and cell["chance"] < 1))
        rows.append(f'<tr><th scope="row">{title(name)}{uses}</th>{"".join(cells)}</tr>')
    overall = [report["overall"], *(report[c]["overall"] for c in CONDITIONS[1:])]
    rows.append('<tr class="total"><th scope="row">All questions</th>')
    rows.append("".join(_heat(cell, None, False) for cell in overall) + "</tr>")
    known = [cell["holds"] for row in judged.values() for cell in row.values() if cell["holds"] is not None]
    lead = "The same questions about the same clips, with sound, picture or the order of time taken away."
    if known:
        lead += (
            f" A question that needs what is lost must fall to chance (its interval reaches it), any other must stay "
            f"within {WITHIN * 100:.0f} points: <b>{sum(known)} of {len(known)}</b> cells do."
        )
    body = f'<table class="heat"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    if known:
        body += '<p class="legend">Small figures are the chance that remains. ✓ and ✗: as it should be, or not.</p>'
        body += f"<details><summary>What needs what</summary>{_needs(report)}</details>"
    return section("modalities", heading, lead, f'<div class="card">{body}</div>')


def _needs(report: Mapping[str, Any]) -> str:
    """For each family and condition in words: what became of it, with its interval."""
    head = "".join(f'<th scope="col">{text(SHORT_WORDS[c])}</th>' for c in CONDITIONS[1:])
    rows = []
    for name in ordered_families(report):
        cells = (report["matters"][name][c] for c in CONDITIONS[1:])
        words = "".join(
            f"<td>{text(cell['found'] or 'not judged')}<small>{interval(cell)}</small></td>" for cell in cells
        )
        rows.append(f'<tr><th scope="row">{title(name)}</th>{words}</tr>')
    return f'<table class="heat"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _heat(cell: Mapping[str, Any], held: bool | None, needed: bool) -> str:
    mark = {True: '<i class="ok" title="as it should be">✓</i>', False: '<i class="bad" title="not so">✗</i>', None: ""}
    chance = f"<small><span>chance </span>{percent(cell['chance'])}</small>" if needed else ""
    tip = f"{interval(cell)}, {cell['n']} questions"
    return (
        f'<td style="--heat:{100 * cell["exact_match"]:.1f}%" title="{tip}">'
        f"<b>{percent(cell['exact_match'])}</b>{mark[held]}{chance}</td>"
    )


def is_right(prediction: Prediction, condition: str = Condition.unchanged) -> bool:
    """Whether the answer under ``condition`` counts."""
    return exact_match(prediction["predicted"].get(condition), prediction["answers"])


def choose(predictions: Sequence[Prediction], count: int, readable: Callable[[str], bool]) -> list[Prediction]:
    """Up to ``count`` predictions of different clips, wrong ones first, at most half, families in turn.

    ``readable`` says whether the pictures of a clip can be shown; others are passed over.
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


def gallery_section(
    predictions: Sequence[Prediction],
    chosen: Sequence[Prediction],
    album: Album,
    show: int,
    looks: Mapping[str, Looked],
    note: str,
) -> str:
    """Right and wrong answers with their clips, and where the model looked.

    Args:
        looks: by example id, of those of ``chosen`` that could be explained.
        note: why the others could not.
    """
    heading = "Its answers"
    if not predictions:
        return section("gallery", heading, "", missing("Predictions", "dvc repro evaluate"))
    if not chosen:
        note = missing("Shards of these clips", "dvc checkout", "not here") if show else "evaluate.gallery is 0."
        return section("gallery", heading, "", note)
    by_clip: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_clip.setdefault(prediction["clip"], []).append(prediction)
    cards = "".join(_answer_card(p, by_clip[p["clip"]], album, looks.get(p["example_id"])) for p in chosen)
    wrong = sum(not is_right(p) for p in predictions)
    left_out = f" {album.left_out} clips were left out to keep this file small." if album.left_out else ""
    lead = (
        f"{wrong:,} of {len(predictions):,} answers are wrong; wrong ones come first here, up to half of the gallery. "
        f"Point at a clip, or tap it, to play it.{left_out}"
    )
    legend = LOOKED_LEGEND if looks else ""
    if note:
        legend += f'<p class="legend">Where it looked is not shown everywhere: {text(note)}. {LOOKED_COMMAND}</p>'
    filters = "".join(
        f'<button type="button" data-show="{word.lower()}" aria-pressed="{str(word == "All").lower()}">{word}</button>'
        for word in ("All", "Right", "Wrong")
    )
    body = f'{legend}<div class="filters" hidden>{filters}</div><div class="grid answers">{cards}</div>'
    return section("gallery", heading, lead, body)


def _answer_card(prediction: Prediction, siblings: Sequence[Prediction], album: Album, found: Looked | None) -> str:
    right = is_right(prediction)
    predicted = prediction["predicted"]
    answer = predicted.get("unchanged")
    expected = "" if right else f'<p class="expected">expected <b>{text(" / ".join(prediction["answers"]))}</b></p>'
    lost = [c for c in CONDITIONS[1:] if predicted.get(c) is not None]
    changed = chips([(SHORT_WORDS[c], predicted[c], is_right(prediction, c)) for c in lost])
    others = [p for p in siblings if p["example_id"] != prediction["example_id"]]
    more = ""
    if others:
        items = "".join(map(_short_answer, others))
        more = f"<details><summary>{len(others)} more about this clip</summary><ul>{items}</ul></details>"
    family = f'<small class="family">{title(prediction["family"])}</small>' if prediction["family"] else ""
    return (
        f'<article class="card answer {"right" if right else "wrong"}">{album.player(prediction["clip"])}'
        f'<div>{family}<p class="question">{text(prediction["prompt"])}</p>'
        f'<p class="said">{text(answer if answer is not None else "no answer")}</p>{expected}'
        f'<div class="chips">{changed}</div>{more}</div>'
        f"{album.looked(prediction['clip'], found) if found else ''}</article>"
    )


def _short_answer(prediction: Prediction) -> str:
    right = is_right(prediction)
    expected = "" if right else f" <small>expected {text(' / '.join(prediction['answers']))}</small>"
    said = prediction["predicted"].get("unchanged")
    said = text(said if said is not None else "no answer")
    return f'<li class="{"yes" if right else "no"}">{text(prediction["prompt"])} <b>{said}</b>{expected}</li>'
