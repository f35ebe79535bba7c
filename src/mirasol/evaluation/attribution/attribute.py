"""Where a model looks while it writes an answer: the chunks of each token, and the picture and sound that counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.loader import BatchForm, collate
from mirasol.data.loading.samples import Sample
from mirasol.data.loading.texts import Text
from mirasol.media.clip import ClipSpec
from mirasol.model import attribution
from mirasol.model.audio import audio_grid
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.tubes import chunk_lattices
from mirasol.tokenizer import EOS, SPACE, Tokenizer

TOKENS_SHOWN = 12

Heat = NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """An answer, and for each of its A tokens the shares of T chunks and of the n features of each chunk."""

    question: str
    answer: str
    pieces: list[str]  # A texts, one per token
    chunks: NDArray[np.float32]  # [A, T], attention; rows sum to 1
    features: NDArray[np.float32]  # [A, T, n], what counted, video before audio; each token's sum to 1
    config: ModelConfig

    @property
    def video_tokens(self) -> int:
        """The number of video features; the other n are audio features."""
        return sum(lattice.tokens for lattice in chunk_lattices(self.config))

    @property
    def picture(self) -> NDArray[np.float32]:
        """[A]: share of the picture in all features; the rest is the sound's."""
        shares: NDArray[np.float32] = self.features[:, :, : self.video_tokens].sum((1, 2))
        return shares

    def shares(self, token: int) -> tuple[str, str]:
        """Shares of picture and sound in what counted for a token, over all chunks, in per cent; – if nothing did."""
        if not self.features[token].any():
            return "–", "–"
        picture = float(self.picture[token])
        return f"{picture:.0%}", f"{1 - picture:.0%}"

    def over_frames(self, shares: Heat) -> Heat:
        """Shares [n] of a chunk's features, those of its video spread over the pixels of their tubes: [K, H, W].

        Keeps the sum, except for shares of frames of the chunk before (`model.overlap`).
        """
        config = self.config
        heat = np.zeros((config.seen_frames, config.size, config.size))
        rest = iter(shares)
        for lattice in chunk_lattices(config):
            (t, h, w), (st, sh, sw) = lattice.shape, lattice.stride
            for place in np.ndindex(*lattice.counts):
                begin = place[0] * st, place[1] * sh, place[2] * sw
                tube = tuple(slice(b, b + e) for b, e in zip(begin, (t, h, w), strict=True))
                heat[tube] += next(rest) / (t * h * w)
        return heat[config.overlap :]

    def over_sound(self, shares: Heat) -> Heat:
        """Shares [n] of a chunk's features, those of its audio spread over the cells of their patches: [A, M]."""
        config = self.config
        (columns, mels), (rows, bands) = config.audio_patch, audio_grid(config)
        heat = np.zeros((config.seen_columns, config.mels))
        spread = shares[self.video_tokens :].reshape(rows, bands).repeat(columns, 0).repeat(mels, 1) / (columns * mels)
        heat[: rows * columns, : bands * mels] = spread
        return heat[config.overlap_columns :]


def attribute(
    model: Mirasol, words: Tokenizer, clip: Decoded, spec: ClipSpec, question: str, max_answer: int
) -> Attribution:
    """The greedy answer to ``question``, and where each of its tokens looked (:mod:`mirasol.model.attribution`).

    Raises:
        ValueError: the clip does not fit the model.
        MirasolError: the question fills the text cache.
    """
    prompt = words.text_ids(question, None)
    limit = min(max_answer, model.config.max_text - len(prompt))
    if limit < 1:
        raise MirasolError(f"the question takes {len(prompt)} tokens, the text cache holds {model.config.max_text}")
    text = Text(np.array(prompt, np.int32), len(prompt), "qa", "")
    batch = collate([Sample("", clip, [text])], BatchForm(spec, model.config.max_text, ("qa",)))
    with torch.no_grad():
        encoded = model.encode(batch)
        lengths = torch.tensor([[len(prompt)]])
        found = model.generate(encoded.h, encoded.present, torch.tensor([[prompt]]), lengths, limit)[0, 0].tolist()
    ids = (found[: found.index(EOS)] if EOS in found else found)[:TOKENS_SHOWN] or [EOS]  # an empty answer looks too
    looks = attribution.attribute(model, batch, torch.tensor(prompt + ids), len(prompt))
    return Attribution(
        question=question,
        answer=words.decode(found),
        pieces=[words.pieces[i].replace(SPACE, " ").strip() or words.pieces[i] for i in ids],
        chunks=looks.chunks.numpy(),
        features=looks.features.numpy(),
        config=model.config,
    )
