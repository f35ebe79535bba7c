"""Questions like those of training are told from foreign ones."""

from __future__ import annotations

import pytest

from mirasol.runtime.questions import LEAST, LearntPrompts

LEARNT = LearntPrompts(["Which sound came first?", "What sound came after the bell?", "What colour is the large one?"])


@pytest.mark.parametrize(
    "question", ["which sound is heard first?", "What sound came after the whistle?", "What colour is the small one?"]
)
def test_paraphrases_and_other_values_are_known(question: str) -> None:
    assert LEAST <= LEARNT.nearest(question)[0] < 1


@pytest.mark.parametrize("question", ["Is there a dog?", "What is happening?", "Was ist zu sehen?", "?", ""])
def test_foreign_questions_are_not(question: str) -> None:
    assert LEARNT.nearest(question)[0] < LEAST


def test_a_learnt_question_has_similarity_one_whatever_its_spaces() -> None:
    assert LEARNT.nearest("  Which sound  came first?") == (1.0, "Which sound came first?")


def test_the_nearest_prompt_is_named() -> None:
    assert LEARNT.nearest("what sound came after the siren")[1] == "What sound came after the bell?"
