"""The model's proposals for labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundle import QUESTION, tiny_bundle
from support.media import tone, write_media

from mirasol.runtime.model import load
from mirasol.serve.proposals import propose


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_media(tmp_path / "clip.mkv", frames=16, size=(32, 32), sound=tone(2.0))


def test_a_proposal_is_the_model_s_answer_with_its_probability(clip: Path) -> None:
    model = load(tiny_bundle())
    found = propose(model, clip, QUESTION)
    assert found.text == str(model.answer(clip, QUESTION))
    assert 0 <= found.margin <= 1 and 0 < found.score <= 1


def test_of_given_answers_the_likeliest_is_proposed(clip: Path) -> None:
    model = load(tiny_bundle())
    found = [propose(model, clip, QUESTION, answers) for answers in (("red", "bell"), ("bell", "red"))]
    assert found[0].text == found[1].text
    assert all(proposal.margin == pytest.approx(2 * proposal.score - 1) for proposal in found)


@pytest.mark.parametrize("answers", [(), ("red", "bell")])
def test_a_foreign_question_is_remarked(clip: Path, answers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_bundle())
    monkeypatch.setattr(model.engine, "nearest_prompt", lambda question: (0.1, "which dog is it"))
    flags = propose(model, clip, QUESTION, answers).flags
    assert "the question is unlike any that was learnt (nearest: 'which dog is it')" in flags
