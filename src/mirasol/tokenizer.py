"""Text to tokens: a SentencePiece unigram vocabulary, read and applied in plain Python.

``sentencepiece`` is needed to train a vocabulary only; training, evaluation and the runtime encode with
the code below, which gives the same tokens. A character that the training texts never had becomes the
unknown token.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.fields import param
from mirasol.core.files import write_json

PAD, UNK, BOS, EOS, ANSWER = range(5)
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<answer>")
SPACE = "\u2581"  # SentencePiece's mark for the space before a word
UNKNOWN_TEXT = "\u2047"
UNKNOWN_PENALTY = 10.0  # SentencePiece's: an unknown character costs this more than the rarest piece
FORMAT = "mirasol-unigram-1"
CACHED_WORDS = 100_000


@dataclass(frozen=True)
class TokenizerSpec:
    """The `tokenizer` section."""

    vocabulary: int = param(256, "largest number of SentencePiece pieces", ge=16, le=262144)
    max_text: int = param(48, "L, tokens of a prompt with its answer: the text cache", ge=8, le=8192)


def normalise(text: str) -> str:
    """Unicode NFKC, runs of white space as one space, none at the ends. Case is kept."""
    return " ".join(unicodedata.normalize("NFKC", text).replace(SPACE, " ").split())


class Tokenizer:
    """Encodes by the most probable split into pieces (Viterbi), word by word, with a cache of words."""

    def __init__(self, pieces: list[tuple[str, float]], max_text: int) -> None:
        """``pieces`` are (text, log probability) in the order of their ids; the first five are SPECIAL.

        ``max_text`` is L, the most tokens that a prompt with its answer may have.
        """
        if tuple(text for text, _ in pieces[: len(SPECIAL)]) != SPECIAL:
            raise ValueError(f"the first pieces must be {SPECIAL}, got {[text for text, _ in pieces[: len(SPECIAL)]]}")
        self.max_text = max_text
        self._texts = [text for text, _ in pieces]
        ordinary = pieces[len(SPECIAL) :]
        self._scores = {text: (score, index) for index, (text, score) in enumerate(ordinary, len(SPECIAL))}
        self._longest = max((len(text) for text, _ in ordinary), default=1)
        self._unknown_score = min((score for _, score in ordinary), default=0.0) - UNKNOWN_PENALTY
        self._cache: dict[str, list[int]] = {}

    @property
    def vocabulary(self) -> int:
        """V: the number of ids, special ones included."""
        return len(self._texts)

    @property
    def pieces(self) -> list[str]:
        """The texts of all ids, in their order."""
        return list(self._texts)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read ``tokenizer.json``.

        Raises:
            MirasolError: the file is missing or is no tokenizer of this format.
        """
        path = Path(path)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r}, expected {FORMAT!r}")
            pieces = [(str(text), float(score)) for text, score in value["pieces"]]
            return cls(pieces, int(value["max_text"]))
        except FileNotFoundError:
            raise MirasolError(f"{path}: no such file: make it with `dvc repro tokenizer`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise MirasolError(f"{path}: no tokenizer of this version ({error!r}): make it again") from error

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` after :func:`normalise`, without special ids; a run of unknown characters is one id."""
        text = normalise(text)
        ids: list[int] = []
        for word in text.split(" ") if text else []:
            known = self._cache.get(word)
            if known is None:
                known = self._viterbi(SPACE + word)
                if len(self._cache) >= CACHED_WORDS:
                    self._cache.clear()
                self._cache[word] = known
            ids += known
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids`` up to the first end mark; other special ids are left out.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        parts: list[str] = []
        for index in ids:
            index = int(index)
            if not 0 <= index < len(self._texts):
                raise ValueError(f"token {index} is outside the vocabulary of {len(self._texts)}")
            if index == EOS:
                break
            if index == UNK:
                parts.append(UNKNOWN_TEXT)
            elif index >= len(SPECIAL):
                parts.append(self._texts[index])
        return "".join(parts).replace(SPACE, " ").strip()

    def text_ids(self, prompt: str, answer: str | None) -> list[int]:
        """``bos prompt answer-mark``, and with an answer ``answer eos`` behind it."""
        ids = [BOS, *self.encode(prompt), ANSWER]
        if answer is not None:
            ids += [*self.encode(answer), EOS]
        return ids

    def answer_length(self, answer: str) -> int:
        """Tokens that generation takes to say ``answer``, its end included."""
        return len(self.encode(answer)) + 1

    def _viterbi(self, word: str) -> list[int]:
        # best[i]: score of the best split of word[:i], where its last piece begins, and that piece's id
        best: list[tuple[float, int, int]] = [(0.0, -1, -1)] + [(-float("inf"), -1, -1)] * len(word)
        for begin in range(len(word)):
            score_here = best[begin][0]
            for end in range(begin + 1, min(len(word), begin + self._longest) + 1):
                piece = self._scores.get(word[begin:end])
                if piece is not None and score_here + piece[0] > best[end][0]:
                    best[end] = (score_here + piece[0], begin, piece[1])
            if word[begin] not in self._scores and score_here + self._unknown_score > best[begin + 1][0]:
                best[begin + 1] = (score_here + self._unknown_score, begin, UNK)
        ids: list[int] = []
        end = len(word)
        while end > 0:
            _, begin, index = best[end]
            if not (index == UNK and ids and ids[-1] == UNK):
                ids.append(index)
            end = begin
        return ids[::-1]


def train_tokenizer(texts: Iterable[str], spec: TokenizerSpec, path: str | Path) -> dict[str, Any]:
    """Train a vocabulary of at most ``spec.vocabulary`` pieces on ``texts`` and write it to ``path``.

    The same texts in any order give the same bytes. Fewer texts than the vocabulary could use give a
    smaller vocabulary.

    Returns:
        ``{"vocabulary": V, "texts": number, "characters": distinct characters}``.

    Raises:
        MirasolError: there is no text, or the vocabulary cannot even hold every character.
    """
    import sentencepiece

    lines = sorted(filter(None, map(normalise, texts)))
    if not lines:
        raise MirasolError("the tokenizer has no text to learn from: is the train split of the manifest empty?")
    trained = sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece(lines, spec.vocabulary))
    pieces = [(trained.id_to_piece(i), float(trained.get_score(i))) for i in range(trained.get_piece_size())]
    write_json(path, {"format": FORMAT, "max_text": spec.max_text, "pieces": pieces})
    return {"vocabulary": len(pieces), "texts": len(lines), "characters": len({c for line in lines for c in line})}


def train_sentencepiece(lines: list[str], vocabulary: int) -> bytes:
    """SentencePiece's own model file for normalised, sorted ``lines``.

    Raises:
        MirasolError: the vocabulary cannot even hold every character.
    """
    import sentencepiece

    model = io.BytesIO()
    # Each word once by itself as well: a text that always goes on in the same way after a word (a space, say)
    # would never offer that word as a piece, because only what ends differently counts as a candidate.
    words = sorted({word for line in lines for word in line.split()})
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines + words),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=1 << 20,
            num_threads=1,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            pad_piece=SPECIAL[PAD],
            unk_piece=SPECIAL[UNK],
            bos_piece=SPECIAL[BOS],
            eos_piece=SPECIAL[EOS],
            control_symbols=[SPECIAL[ANSWER]],
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        characters = {c for line in lines for c in line} - {" "} | {SPACE}
        raise MirasolError(
            f"tokenizer.vocabulary is {vocabulary}, but the texts hold {len(characters)} different characters: "
            f"set it to at least {len(characters) + len(SPECIAL)} ({str(error).splitlines()[0]})"
        ) from error
    return model.getvalue()
