"""Where the model looked, in the gallery of the report."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from support.reporting import finish, looked_rows, page_of

from mirasol.data.loading.dataset import ShardDataset
from mirasol.evaluation.pictures import HEAT, glow
from mirasol.evaluation.report import attribution as report_look
from mirasol.evaluation.report.album import Album
from mirasol.evaluation.report.attribution import looks
from mirasol.tasks.scoring.config import EvaluateSpec

LONGEST = EvaluateSpec().max_answer


def shards_of(project: Path) -> ShardDataset:
    return ShardDataset(project / "build/shards", "test")


def png_size(address: str) -> tuple[int, int]:
    """Width and height in the header of a PNG file in a ``data:`` address."""
    file = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big")


def test_an_answer_is_explained_over_all_chunks(made_project: Path) -> None:
    rows = looked_rows(made_project, 2)
    found, note = looks(made_project, shards_of(made_project), rows, LONGEST)
    assert (set(found), note) == ({row["example_id"] for row in rows}, "")
    album = Album()
    for row in rows:
        clip = shards_of(made_project).read(shards_of(made_project).keys.index(row["clip"]))
        album.add(row["clip"], clip.video, clip.audio, 2.0)
        looked = album.looked(row["clip"], found[row["example_id"]])
        assert len(looked["bars"]) == 4
        assert sum(attention for attention, *_ in looked["bars"]) == pytest.approx(1, abs=1e-5)
        assert 0 <= looked["picture"] <= sum(counted for _, counted, *_ in looked["bars"]) + 1e-6
        assert len(looked["places"]) == 8
        assert png_size(looked["frames"]) == (8 * 12, 12)
        assert png_size(looked["sound"]) == (64, 32)


def test_the_page_shows_each_with_words_for_those_who_cannot_see_it(project: Path) -> None:
    page, text = page_of(finish(project, looked_rows(project)))
    assert page.classes.count("looked") == page.classes.count("answer") == 6
    assert text.count('aria-label="where it looked for ') == 6
    assert "attention over the 4 chunks" in text


def test_answers_of_other_weights_are_not_explained(project: Path) -> None:
    rows = looked_rows(project, 2)
    rows[0]["predicted"] = {"unchanged": "of other weights"}
    found, note = looks(project, shards_of(project), rows, LONGEST)
    assert set(found) == {rows[1]["example_id"]}
    assert note == "the weights here give another answer to 1 of 2"


@pytest.mark.parametrize("lost", ["build/finetune/weights.safetensors", "build/tokenizer/tokenizer.json"])
def test_without_the_model_the_page_says_so(project: Path, lost: str) -> None:
    finish(project)
    (project / lost).unlink()
    page, _ = page_of(project)
    assert "Where it looked is not shown everywhere: the weights are not here" in page.text
    assert "looked" not in page.classes


def test_a_model_that_is_too_large_is_left_alone(made_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_look, "LARGEST", 1)
    found, note = looks(made_project, shards_of(made_project), [{}], LONGEST)
    assert not found
    assert "MiB of weights are too many" in note


def test_heat_darkens_what_is_cold_and_lights_what_is_hot() -> None:
    image = glow(np.array([[0.0, 4.0]]), 1.0)
    cold, hot = image[0]
    assert cold.tolist()[:3] == [0, 0, 0]
    assert hot.tolist()[:3] == list(HEAT)
    assert 100 < cold[3] < hot[3] < 255


def test_heat_of_nothing_lights_nothing() -> None:
    assert not glow(np.zeros((2, 2)), 1.0)[..., :3].any()
