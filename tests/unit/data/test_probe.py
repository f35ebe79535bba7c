"""The facts about a data set, from headers that a fake gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example
from mirasol.data.probe import Facts, Spread, probe
from mirasol.media.container import MediaInfo
from mirasol.media.probe import Status

FILM = MediaInfo(10.0, True, True, 640, 480, 25.0, "h264", "aac", 44100, 2)
SOUND = MediaInfo(2.0, False, True, 0, 0, None, "", "flac", 8000, 1)


def row(number: int, **changed: Any) -> Example:
    known: dict[str, Any] = {
        "id": f"{number}", "media": f"{number}.mp4", "start": None, "end": None, "task": "qa", "prompt": "Which way?",
        "answers": ("Left.",), "split": "train", "group": f"{number}",
    }  # fmt: skip
    return Example(**known | changed)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Probes rows whose media are ``FILM``, but for those ending in .wav, and .txt, which cannot be read."""

    def status(path: Path, upto: float) -> Status:
        info = {".wav": SOUND, ".txt": None}.get(path.suffix, FILM)
        return Status("ok" if info else "rejected", "" if info else f"{path.name}: no", 0.0, info)

    monkeypatch.setattr("mirasol.media.probe.probe_file", status)
    return lambda *rows: probe(rows, Path("data"))


def test_a_clip_lasts_from_its_start_to_its_end_or_to_that_of_its_file(found: Any) -> None:
    facts: Facts = found(row(1, start=2.0, end=5.0), row(2, start=4.0), row(3))
    assert (facts.seconds.low, facts.seconds.middle, facts.seconds.high) == (3.0, 6.0, 10.0)


def test_sound_and_picture_are_counted(found: Any) -> None:
    facts: Facts = found(row(1), row(2, media="2.wav"))
    assert (facts.seen, facts.heard, facts.width.middle) == (0.5, 1.0, 640.0)


def test_chance_is_the_share_of_the_most_frequent_answer(found: Any) -> None:
    facts: Facts = found(row(1), row(2), row(3, answers=("Right.",)))
    assert facts.questions[0].majority == pytest.approx(2 / 3)


def test_words_are_those_of_questions_and_answers(found: Any) -> None:
    assert found(row(1)).words == {"which", "way", "left"}


def test_questions_of_a_clip_are_one_clip(found: Any) -> None:
    facts: Facts = found(row(1), row(1, id="b", prompt="How many?"), row(2, split="test"))
    assert facts.clips == {"train": 1, "test": 1} and facts.texts_per_clip == 2


BARE: dict[str, Any] = {"task": "unlabelled", "prompt": "", "answers": ()}


def test_clips_without_texts_are_counted_apart_and_no_length_goes_by_them(found: Any) -> None:
    facts: Facts = found(row(1, end=3.0), row(2, **BARE), row(3, **BARE))
    assert (facts.clips, facts.unlabelled, facts.seconds.high) == ({"train": 1}, 2, 3.0)


def test_clips_without_texts_alone_have_facts_too(found: Any) -> None:
    facts: Facts = found(row(1, **BARE))
    assert (facts.training, facts.unlabelled, facts.seconds.high, facts.longest_text) == (0, 1, 10.0, 0)


def test_an_unreadable_file_is_named(found: Any) -> None:
    assert found(row(1), row(2, media="2.txt")).unreadable == ("2.txt: no",)


def test_nothing_readable_is_refused(found: Any) -> None:
    with pytest.raises(MirasolError, match="none of the 1 media"):
        found(row(1, media="1.txt"))


def test_no_figure_is_zero() -> None:
    assert Spread.of([]) == Spread(0.0, 0.0, 0.0, 0.0)
