"""Compare the exported steps with torch along whole clips of a split."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.data.conditions import Condition
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded, audio_shape, video_shape
from mirasol.data.loading.view import view_of
from mirasol.export.config import ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE, black_frame
from mirasol.model.batch import Batch, Encoded
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.runtime.contract import TEXT
from mirasol.runtime.engine import Engine, relative
from mirasol.runtime.features import Inputs
from mirasol.runtime.session import Session
from mirasol.tokenizer import EOS, PAD

TIE = 1e-5  # relative: rounding may exchange two logits that are closer
CONDITIONS = (Condition.unchanged, Condition.muted, Condition.blanked)  # each takes another path through the graph


@dataclass
class Comparison:
    """A model and its exported graphs, with the differences found so far."""

    model: Mirasol
    engine: Engine
    max_answer: int
    worst: dict[str, float] = field(default_factory=lambda: {"x": 0.0, "h": 0.0, "logits": 0.0})
    chunks: int = 0
    answers: int = 0
    ties: int = 0
    different: list[str] = field(default_factory=list)

    def clip(self, batch: Batch, questions: list[str], looked_at: int) -> None:
        """Compare one clip in one condition; logits along the answer of question ``looked_at``."""
        engine, encoded, session = self.engine, self.model.encode(batch), Session(self.engine)
        for t in range(batch.video.shape[1]):
            latents = session.push_features(chunk_inputs(batch, t))
            self._note("x", latents.x, encoded.x[0, t])
            self._note("h", latents.h, encoded.h[0, t])
            self.chunks += 1
        prompts = [engine.prompt(question) for question in questions]
        limit = min(self.max_answer, self.model.config.max_text - max(map(len, prompts)))
        answers = _torch_answers(self.model, encoded, prompts, limit)
        for i, (question, prompt, expected) in enumerate(zip(questions, prompts, answers, strict=True)):
            found = list(session.answer_ids(question, limit))
            self.answers += 1
            if i == looked_at or found != expected:
                logits = self.model.logits(torch.tensor([[prompt + expected]]), encoded.h, encoded.present)[0, 0]
                if i == looked_at:
                    self._logits(session, prompt + expected, logits)
                if found != expected:
                    self._answer(question, logits[len(prompt) - 1 :], found, expected)

    def _note(self, name: str, found: NDArray[np.float32], expected: Tensor) -> None:
        self.worst[name] = max(self.worst[name], relative(found, expected.numpy()))

    def _logits(self, session: Session, ids: list[int], expected: Tensor) -> None:
        states = self.engine.initial(TEXT)
        memory, valid = session.memory
        for token, row in zip(ids, expected, strict=True):
            logits, states = self.engine.text(token, memory, valid, states)
            self._note("logits", logits[0], row)

    def _answer(self, question: str, logits: Tensor, found: list[int], expected: list[int]) -> None:
        """Count an answer that differs, as a tie if torch finds the two tokens equally likely."""
        pairs = itertools.zip_longest(found, expected, fillvalue=EOS)
        place, (mine, its) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        gap = float((logits[place, its] - logits[place, mine]).abs() / logits[place].abs().max())
        if gap <= TIE:
            self.ties += 1
        else:
            texts = [self.engine.tokenizer.decode(ids) for ids in (found, expected)]
            self.different.append(f"{question!r}: {texts[0]!r}, torch {texts[1]!r}")


@torch.no_grad()
def check_parity(
    model: Mirasol, bundle: str | Path, shards: str | Path, spec: ExportSpec, *, split: str, max_answer: int
) -> dict[str, Any]:
    """Stream clips of ``split`` through ``bundle`` and compare with the whole clips in torch.

    Each clip comes unchanged, without sound and without video. The comparison covers x and h of every chunk, the
    logits along one answer, and all greedy answers.

    Returns:
        ``reports/parity.json``: ``max_relative`` and its parts ``x``, ``h``, ``logits``; counts of clips, chunks and
        answers; ``answers_equal``, including ``ties``, where rounding chose between two tokens that are equally likely
        in torch.

    Raises:
        MirasolError: the bundle or the shards cannot be used.
    """
    model.eval()
    comparison = Comparison(model, Engine(bundle, threads=1), max_answer)  # the same digits with any number of cores
    clips = ShardDataset(shards, split, view=view_of(model.config))
    numbers = np.unique(np.linspace(0, len(clips) - 1, min(spec.clips, len(clips))).round().astype(int))
    with torch_threads(1), Progress("parity", len(numbers), "clips") as progress:
        for order, number in enumerate(numbers):
            clip = clips.read(int(number))
            questions = sorted({example["prompt"] for example in clip.meta["examples"]})
            for condition in CONDITIONS:
                batch = clip_batch(clip, clips.spec, condition)
                if batch is not None:
                    comparison.clip(batch, questions, order % len(questions))
            progress.advance(worst=max(comparison.worst.values()))
    return {
        "combiner": model.config.combiner,
        "split": split,
        "max_relative": max(comparison.worst.values()),
        **comparison.worst,
        "tolerance": spec.tolerance,
        "clips": len(numbers),
        "chunks": comparison.chunks,
        "answers": comparison.answers,
        "answers_equal": comparison.answers - len(comparison.different),
        "ties": comparison.ties,
        "different": comparison.different[:10],
    }


def require_parity(report: dict[str, Any]) -> None:
    """Raise MirasolError if the largest relative difference exceeds the tolerance, or an answer differs."""
    if not report["max_relative"] <= report["tolerance"]:
        parts = ", ".join(f"{name} {report[name]:.1e}" for name in ("x", "h", "logits"))
        raise MirasolError(
            f"the exported graphs differ from torch by {report['max_relative']:.1e} relative ({parts}), "
            f"export.tolerance allows {report['tolerance']:.1e}: see build/reports/parity.json"
        )
    if report["answers_equal"] != report["answers"]:
        raise MirasolError(
            f"{report['answers'] - report['answers_equal']} of {report['answers']} answers differ from torch's, "
            f"the first: {report['different'][0]}; see build/reports/parity.json"
        )


def clip_batch(clip: Decoded, spec: ClipSpec, condition: Condition) -> Batch | None:
    """A batch of one clip without texts; ``None`` if the condition would change nothing or leave nothing."""
    if condition is not Condition.unchanged and not (clip.video_present.any() and clip.audio_present.any()):
        return None
    video, audio = clip.video, clip.audio
    if video is None:
        video = np.broadcast_to(black_frame(spec.size), video_shape(spec)).copy()
    if audio is None:
        audio = np.full(audio_shape(spec), SILENCE, np.float32)
    return Batch(
        video=torch.tensor(video)[None],
        audio=torch.tensor(audio)[None],
        video_present=torch.tensor(clip.video_present & (condition is not Condition.blanked))[None],
        audio_present=torch.tensor(clip.audio_present & (condition is not Condition.muted))[None],
        tokens=torch.zeros(1, 0, 0, dtype=torch.int64),
        answer_mask=torch.zeros(1, 0, 0, dtype=torch.bool),
        text_weight=torch.zeros(1, 0),
    )


def chunk_inputs(batch: Batch, t: int) -> Inputs:
    """Chunk ``t`` of a batch of one clip, as a session takes it."""
    return Inputs(
        video=batch.video[:, t].numpy(),
        audio=batch.audio[:, t].numpy(),
        video_present=bool(batch.video_present[0, t]),
        audio_present=bool(batch.audio_present[0, t]),
    )


def _torch_answers(model: Mirasol, encoded: Encoded, prompts: list[list[int]], limit: int) -> list[list[int]]:
    """Greedy tokens of every answer, without the end mark."""
    lengths = torch.tensor([[len(prompt) for prompt in prompts]])
    padded = torch.full((1, len(prompts), int(lengths.max())), PAD)
    for i, prompt in enumerate(prompts):
        padded[0, i, : len(prompt)] = torch.tensor(prompt)
    answers = model.generate(encoded.h, encoded.present, padded, lengths, limit)[0].tolist()
    return [ids[: ids.index(EOS)] if EOS in ids else ids for ids in answers]
