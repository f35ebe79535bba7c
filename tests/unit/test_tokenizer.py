"""The tokenizer: SentencePiece's own tokens without SentencePiece."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from mirasol.core.errors import MirasolError
from mirasol.tokenizer import (
    ANSWER,
    BOS,
    EOS,
    PAD,
    UNK,
    Tokenizer,
    TokenizerSpec,
    normalise,
    train_sentencepiece,
    train_tokenizer,
)

TEXT = """
which what colour shape flashed moved with the bell buzz beep noise red green blue small large square circle left right
up down first last came after rising falling how many times Ölfarbe naïve don't 3.14 日本語
"""
WORDS = TEXT.split()


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(sentences(400, 1), TokenizerSpec(vocabulary=160, max_text=32), path)
    return Tokenizer.load(path)


def test_tokens_are_sentencepieces_own(tokenizer: Tokenizer) -> None:
    model = train_sentencepiece(sorted(map(normalise, sentences(400, 1))), 160)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    draw = random.Random(3)
    characters = [*sorted({c for word in WORDS for c in word}), " ", " ", "Q", "Ж", "🎻"]
    texts = sentences(2000, 2) + ["".join(draw.choices(characters, k=draw.randint(0, 30))) for _ in range(3000)]
    wrong = [t for t in texts if tokenizer.encode(t) != reference.encode(normalise(t))]
    assert not wrong, wrong[:3]


def test_decoding_undoes_encoding(tokenizer: Tokenizer) -> None:
    for text in sentences(200, 4):
        assert tokenizer.decode(tokenizer.encode(text)) == normalise(text)


def test_text_is_normalised_but_keeps_its_case() -> None:
    assert normalise("  Ｗhich\tred\n ﬁsh? ") == "Which red fish?"


def test_a_prompt_with_its_answer(tokenizer: Tokenizer) -> None:
    prompt, answer = tokenizer.encode("what colour"), tokenizer.encode("red")
    assert tokenizer.text_ids("what colour", "red") == [BOS, *prompt, ANSWER, *answer, EOS]
    assert tokenizer.text_ids("what colour", None) == [BOS, *prompt, ANSWER]


def test_decoding_stops_at_the_end_mark(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("red"), EOS, *tokenizer.encode("blue"), PAD]) == "red"


def test_unknown_characters_are_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("ЖЖЖ").count(UNK) == 1
    assert "\u2047" in tokenizer.decode(tokenizer.encode("Ж"))


def test_marks_in_a_text_are_text(tokenizer: Tokenizer) -> None:
    assert not {BOS, EOS, ANSWER} & set(tokenizer.encode("<s> </s> <answer>"))


def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocabulary])


def test_equal_texts_in_any_order_give_equal_bytes(tmp_path: Path) -> None:
    texts = sentences(300, 5)
    for name, some in (("a", texts), ("b", texts[::-1])):
        train_tokenizer(some, TokenizerSpec(vocabulary=120), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_few_texts_give_a_small_vocabulary(tmp_path: Path) -> None:
    report = train_tokenizer(["red", "blue"], TokenizerSpec(vocabulary=256), tmp_path / "t.json")
    tokenizer = Tokenizer.load(tmp_path / "t.json")
    assert tokenizer.vocabulary == report["vocabulary"] < 256
    assert tokenizer.decode(tokenizer.encode("blue red")) == "blue red"


def test_a_vocabulary_below_the_alphabet_says_how_large_it_must_be(tmp_path: Path) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(MirasolError, match="set it to at least 32"):
        train_tokenizer([text], TokenizerSpec(vocabulary=20), tmp_path / "t.json")
    train_tokenizer([text], TokenizerSpec(vocabulary=32), tmp_path / "t.json")


def test_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no text to learn from"):
        train_tokenizer(["  "], TokenizerSpec(), tmp_path / "t.json")


@pytest.mark.parametrize("content", ["{}", "[", '{"format": "other", "pieces": []}'])
def test_a_file_that_is_no_tokenizer_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(MirasolError, match="no tokenizer of this version"):
        Tokenizer.load(tmp_path / "t.json")


def test_a_missing_tokenizer_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="dvc repro tokenizer"):
        Tokenizer.load(tmp_path / "t.json")


def test_encoding_needs_neither_torch_nor_sentencepiece() -> None:
    code = "import sys, mirasol.tokenizer; assert not {'torch', 'sentencepiece'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
