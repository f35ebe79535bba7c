from __future__ import annotations

from typing import Any

import pytest

from mirasol.tasks.scoring.metrics import CHANGED, Constant, score

FAMILIES = {
    "sound": {"kind": "heard", "needs": ["audio"], "chance": 0.25, "muted": 0.25, "blanked": 1.0, "shuffled": 1.0},
    "colour": {"kind": "seen", "needs": ["video"], "chance": 0.5, "muted": 1.0, "blanked": 0.5, "shuffled": 0.75},
}


def row(clip: int, family: str, answer: str, group: str = "", **predicted: str | None) -> dict[str, Any]:
    """A prediction; conditions that are not named answer like the unchanged clip."""
    same = predicted.get("unchanged")
    return {
        "example_id": f"{clip}-{family}",
        "clip": f"clip{clip}",
        "group": group or f"g{clip}",
        "family": family,
        "prompt": f"Which {family}?",
        "answers": [answer],
        "predicted": {"unchanged": same, "muted": same, "blanked": same, "swapped": same, "shuffled": same} | predicted,
    }


def scored(rows: list[dict[str, Any]], families: dict[str, Any] | None = None, **guess: str) -> dict[str, Any]:
    return score(rows, FAMILIES if families is None else families, Constant(guess, "red"), resamples=200, seed=1)


def test_a_cell_counts_questions_and_clips() -> None:
    report = scored([row(1, "sound", "bell", unchanged="Bell."), row(1, "colour", "red", unchanged="blue")])
    cell = report["overall"]
    assert (cell["exact_match"], cell["exact_match_raw"], cell["n"], cell["clips"]) == (0.5, 0.0, 2, 1)


def test_chance_is_the_mean_of_what_families_know() -> None:
    report = scored([row(1, "sound", "bell", unchanged="bell"), row(2, "colour", "red", unchanged="red")])
    assert report["overall"]["chance"] == pytest.approx(0.375)
    assert report["families"]["sound"]["chance"] == 0.25


@pytest.mark.parametrize(
    ("condition", "chance"), [("muted", 0.25), ("blanked", 1.0), ("swapped", 0.25), ("shuffled", 1.0)]
)
def test_each_condition_has_its_own_chance(condition: str, chance: float) -> None:
    report = scored([row(1, "sound", "bell", unchanged="bell")])
    assert report[condition]["families"]["sound"]["chance"] == chance


def test_without_families_chance_is_the_share_of_the_most_frequent_training_answer() -> None:
    learnt = Constant.learn([("Which x?", ["drum"]), ("Which x?", ["a drum", "tom"]), ("Which x?", ["flute"])])
    rows = [row(1, "x", "flute", unchanged="flute"), row(2, "y", "red", unchanged="red")]
    report = score(rows, {}, learnt, resamples=200, seed=1)
    assert report["families"]["x"]["chance"] == pytest.approx(2 / 3, abs=1e-6), "not 0: all test rows say flute"
    assert report["families"]["y"]["chance"] == pytest.approx(2 / 3, abs=1e-6)  # never asked in training: the fallback


def test_novel_groups_have_their_own_cell() -> None:
    report = scored([row(1, "sound", "bell", unchanged="bell"), row(2, "sound", "bell", "novel-2", unchanged="buzz")])
    assert report["novel"]["n"] == 1
    assert report["novel"]["exact_match"] == 0.0


def test_no_novel_group_is_none() -> None:
    assert scored([row(1, "sound", "bell", unchanged="bell")])["novel"] is None


def test_questions_without_family_count_overall_only() -> None:
    report = scored([row(1, "", "bell", unchanged="bell")])
    assert report["families"] == {}
    assert report["overall"]["n"] == 1


def test_missing_clips_are_wrong_under_every_condition() -> None:
    report = scored([row(1, "sound", "bell", unchanged=None), row(2, "sound", "bell", unchanged="bell")])
    assert [report[c]["overall"]["exact_match"] for c in CHANGED] == [0.5] * 4
    assert report["overall"]["exact_match"] == 0.5


def test_no_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        scored([])


def test_equal_predictions_give_equal_reports() -> None:
    rows = [row(i, "sound", "bell", unchanged="bell" if i % 3 else "buzz") for i in range(30)]
    assert scored(rows) == scored(rows[::-1])


def test_a_report_says_what_each_family_needs() -> None:
    rows = [row(i, "sound", "bell", unchanged="bell", muted="buzz", blanked="buzz", swapped="buzz") for i in range(40)]
    report = scored(rows)
    found = report["matters"]["sound"]
    assert {c: (f["found"], f["holds"]) for c, f in found.items()} == {
        "muted": ("falls to chance", True),
        "blanked": ("neither", False),
        "swapped": ("falls to chance", True),
        "shuffled": ("stays within 2 points", True),
    }
    assert found["muted"]["ci95"] == report["muted"]["families"]["sound"]["ci95"]


@pytest.mark.parametrize("known", [{}, {"sound": {"kind": "heard", "needs": ["audio"], "chance": 0.25}}])
def test_what_families_do_not_know_is_not_judged(known: dict[str, Any]) -> None:
    report = scored([row(i, "sound", "bell", unchanged="bell", muted="buzz") for i in range(40)], known)
    assert all(f["found"] is None and f["holds"] is None for f in report["matters"]["sound"].values())


def test_the_constant_answer_is_the_commonest_of_its_prompt() -> None:
    guess = Constant.learn([("a?", ["x"]), ("a?", ["Y."]), ("a?", ["y"]), ("b?", ["z"])])
    assert (guess("a?"), guess("b?"), guess("new?")) == ("y", "z", "y")


def test_ties_go_to_the_alphabet() -> None:
    assert Constant.learn([("a?", ["y"]), ("a?", ["x"])])("a?") == "x"


def test_nothing_learnt_answers_nothing() -> None:
    assert Constant.learn([])("a?") == ""
