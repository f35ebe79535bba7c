from __future__ import annotations

import pytest

from mirasol.tasks.scoring.normalise import exact_match, exact_match_raw, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red", "red"),
        ("  two   words ", "two words"),
        ("A red ball.", "red ball"),
        ("the “bell”!", "bell"),
        ("(playing, drums)", "playing drums"),
        ("it's", "it's"),
        ("C#", "c#"),
        ("-5", "-5"),
        (".5", ".5"),
        ("3.5 %", "3.5 %"),
        ("A", "a"),
        ("the", "the"),
        ("ﬁsh", "fish"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize("text", ["A 'the' b.", "“.a.”", "THE the", "x ... y", "(-5)"])
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_any_answer_counts() -> None:
    assert exact_match("The dog.", ("cat", "dog"))


def test_raw_counts_characters() -> None:
    assert exact_match_raw("dog", ("cat", "dog"))
    assert not exact_match_raw("Dog", ("cat", "dog"))


def test_no_answer_is_wrong() -> None:
    assert not exact_match(None, ("",))
    assert not exact_match_raw(None, ("",))
