from __future__ import annotations

from typing import Any

import pytest

from mirasol.evaluation.metrics import Constant, score, verdicts

FAMILIES = {
    "sound": {"kind": "heard", "needs": ["audio"], "chance": 0.25, "muted": 0.25, "blanked": 1.0},
    "colour": {"kind": "seen", "needs": ["video"], "chance": 0.5, "muted": 1.0, "blanked": 0.5},
}


def row(clip: int, family: str, answer: str, group: str = "", **predicted: str | None) -> dict[str, Any]:
    """A prediction; conditions that are not named answer like the full one."""
    full = predicted.get("full")
    return {
        "example_id": f"{clip}-{family}",
        "clip": f"clip{clip}",
        "group": group or f"g{clip}",
        "family": family,
        "prompt": f"Which {family}?",
        "answers": [answer],
        "predicted": {"full": full, "muted": full, "blanked": full, "swapped": full} | predicted,
    }


def scored(rows: list[dict[str, Any]], families: dict[str, Any] | None = None, **guess: str) -> dict[str, Any]:
    return score(rows, FAMILIES if families is None else families, Constant(guess, "red"), resamples=200, seed=1)


def test_a_cell_counts_questions_and_clips() -> None:
    report = scored([row(1, "sound", "bell", full="Bell."), row(1, "colour", "red", full="blue")])
    cell = report["overall"]
    assert (cell["exact_match"], cell["exact_match_raw"], cell["n"], cell["clips"]) == (0.5, 0.0, 2, 1)


def test_chance_is_the_mean_of_what_families_know() -> None:
    report = scored([row(1, "sound", "bell", full="bell"), row(2, "colour", "red", full="red")])
    assert report["overall"]["chance"] == pytest.approx(0.375)
    assert report["families"]["sound"]["chance"] == 0.25


@pytest.mark.parametrize(("condition", "chance"), [("muted", 0.25), ("blanked", 1.0), ("swapped", 0.25)])
def test_each_condition_has_its_own_chance(condition: str, chance: float) -> None:
    report = scored([row(1, "sound", "bell", full="bell")])
    assert report[condition]["families"]["sound"]["chance"] == chance


def test_without_families_chance_is_the_constant_answer() -> None:
    rows = [row(1, "x", "drum", full="drum"), row(2, "x", "flute", full="flute"), row(3, "y", "red", full="red")]
    report = scored(rows, {}, **{"Which x?": "drum"})
    assert report["families"]["x"]["chance"] == 0.5
    assert report["families"]["y"]["chance"] == 1.0  # a prompt never asked in training: the fallback


def test_novel_groups_have_their_own_cell() -> None:
    report = scored([row(1, "sound", "bell", full="bell"), row(2, "sound", "bell", "novel-2", full="buzz")])
    assert report["novel"]["n"] == 1
    assert report["novel"]["exact_match"] == 0.0


def test_no_novel_group_is_none() -> None:
    assert scored([row(1, "sound", "bell", full="bell")])["novel"] is None


def test_questions_without_family_count_overall_only() -> None:
    report = scored([row(1, "", "bell", full="bell")])
    assert report["families"] == {}
    assert report["overall"]["n"] == 1


def test_missing_clips_are_wrong_under_every_condition() -> None:
    report = scored([row(1, "sound", "bell", full=None), row(2, "sound", "bell", full="bell")])
    assert [report[c]["overall"]["exact_match"] for c in ("muted", "blanked", "swapped")] == [0.5] * 3
    assert report["overall"]["exact_match"] == 0.5


def test_no_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        scored([])


def test_equal_predictions_give_equal_reports() -> None:
    rows = [row(i, "sound", "bell", full="bell" if i % 3 else "buzz") for i in range(30)]
    assert scored(rows) == scored(rows[::-1])


def _asked(muted: str, blanked: str) -> dict[str, Any]:
    rows = [
        row(i, "sound", "bell", full="bell", muted=muted if i % 4 else "bell", blanked=blanked, swapped="buzz")
        for i in range(40)
    ]
    return verdicts(scored(rows))["sound"]


def test_a_model_that_listens_passes() -> None:
    assert _asked(muted="buzz", blanked="bell") == {"muted": True, "blanked": True, "swapped": True}


def test_a_model_that_guesses_right_without_sound_fails() -> None:
    assert _asked(muted="bell", blanked="bell")["muted"] is False


def test_a_model_that_is_led_by_what_it_does_not_need_fails() -> None:
    assert _asked(muted="buzz", blanked="buzz")["blanked"] is False


def test_a_model_that_knows_nothing_proves_nothing() -> None:
    rows = [row(i, "sound", "bell", full="buzz") for i in range(40)]
    assert verdicts(scored(rows))["sound"] == {"muted": None, "blanked": None, "swapped": None}


def test_unknown_needs_give_no_verdict() -> None:
    report = scored([row(1, "x", "drum", full="drum")], {})
    assert verdicts(report)["x"] == {"muted": None, "blanked": None, "swapped": None}


def test_the_constant_answer_is_the_commonest_of_its_prompt() -> None:
    guess = Constant.learn([("a?", ["x"]), ("a?", ["Y."]), ("a?", ["y"]), ("b?", ["z"])])
    assert (guess("a?"), guess("b?"), guess("new?")) == ("y", "z", "y")


def test_ties_go_to_the_alphabet() -> None:
    assert Constant.learn([("a?", ["y"]), ("a?", ["x"])])("a?") == "x"


def test_nothing_learnt_answers_nothing() -> None:
    assert Constant.learn([])("a?") == ""
