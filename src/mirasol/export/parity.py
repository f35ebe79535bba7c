"""The exported steps against torch, chained over whole clips of a split."""

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
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded, audio_shape, video_shape
from mirasol.export.config import ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE, black_frame
from mirasol.model.batch import Batch
from mirasol.model.generation import greedy
from mirasol.model.mirasol import Encoded, Mirasol
from mirasol.model.threads import torch_threads
from mirasol.runtime.contract import TEXT
from mirasol.runtime.engine import Engine, relative
from mirasol.runtime.features import Inputs
from mirasol.runtime.session import Session
from mirasol.tokenizer import EOS, PAD

TIE = 1e-5  # relative: two logits that are closer may change places by rounding
CONDITIONS = ("as it is", "muted", "blanked")  # a modality that is missing is another path through the graph


@dataclass
class Tally:
    """What was compared so far."""

    worst: dict[str, float] = field(default_factory=lambda: {"x": 0.0, "h": 0.0, "logits": 0.0})
    chunks: int = 0
    answers: int = 0
    ties: int = 0
    different: list[str] = field(default_factory=list)

    def note(self, name: str, found: NDArray[np.float32], expected: Tensor) -> None:
        """Compare one tensor with torch's."""
        self.worst[name] = max(self.worst[name], relative(found, expected.numpy()))


@torch.no_grad()
def check_parity(
    model: Mirasol, bundle: str | Path, shards: str | Path, spec: ExportSpec, *, split: str, max_answer: int
) -> dict[str, Any]:
    """Stream clips of ``split`` through ``bundle`` and compare with the whole clips in torch.

    Each clip is taken as it is, with its sound missing and with its picture missing; x and h of every
    chunk, the logits along one answer, and all greedy answers are compared.

    Returns:
        ``reports/parity.json``: ``max_relative`` and its parts ``x``, ``h``, ``logits``; counts of clips,
        chunks and answers; ``answers_equal``, and among them ``ties``, where rounding chose between two tokens
        that torch finds equally likely.

    Raises:
        MirasolError: the bundle or the shards cannot be used.
    """
    model.eval()
    engine = Engine(bundle)
    clips = ShardDataset(shards, split)
    numbers = np.unique(np.linspace(0, len(clips) - 1, min(spec.clips, len(clips))).round().astype(int))
    tally = Tally()
    with torch_threads(1), Progress("parity", len(numbers), "clips") as progress:
        for order, number in enumerate(numbers):
            clip = clips.read(int(number))
            questions = sorted({example["prompt"] for example in clip.meta["examples"]})
            for condition in CONDITIONS:
                batch = clip_batch(clip, clips.spec, condition)
                if batch is not None:
                    _compare(model, engine, batch, questions, order % len(questions), max_answer, tally)
            progress.advance(worst=max(tally.worst.values()))
    return {
        "combiner": model.config.combiner,
        "split": split,
        "max_relative": max(tally.worst.values()),
        **tally.worst,
        "tolerance": spec.tolerance,
        "clips": len(numbers),
        "chunks": tally.chunks,
        "answers": tally.answers,
        "answers_equal": tally.answers - len(tally.different),
        "ties": tally.ties,
        "different": tally.different[:10],
    }


def require_parity(report: dict[str, Any]) -> None:
    """Refuse a bundle that does not compute what torch computes.

    Raises:
        MirasolError: the largest relative difference is over the tolerance, or an answer differs.
    """
    if not report["max_relative"] <= report["tolerance"]:
        parts = ", ".join(f"{name} {report[name]:.1e}" for name in ("x", "h", "logits"))
        raise MirasolError(
            f"the exported graphs differ from torch by {report['max_relative']:.1e} relative ({parts}), "
            f"export.tolerance allows {report['tolerance']:.1e}: see reports/parity.json"
        )
    if report["answers_equal"] != report["answers"]:
        raise MirasolError(
            f"{report['answers'] - report['answers_equal']} of {report['answers']} answers differ from torch's, "
            f"the first: {report['different'][0]}; see reports/parity.json"
        )


def clip_batch(clip: Decoded, spec: ClipSpec, condition: str) -> Batch | None:
    """A batch of one clip without texts; ``None`` where the condition changes nothing or leaves nothing."""
    present = {"muted": clip.video_present, "blanked": clip.audio_present}  # what is left
    absent = {"muted": clip.audio_present, "blanked": clip.video_present}
    if condition in present and not (present[condition].any() and absent[condition].any()):
        return None
    video, audio = clip.video, clip.audio
    if video is None:
        video = np.broadcast_to(black_frame(spec.size), video_shape(spec)).copy()
    if audio is None:
        audio = np.full(audio_shape(spec), SILENCE, np.float32)
    return Batch(
        video=torch.tensor(video)[None],
        audio=torch.tensor(audio)[None],
        video_present=torch.tensor(clip.video_present & (condition != "blanked"))[None],
        audio_present=torch.tensor(clip.audio_present & (condition != "muted"))[None],
        tokens=torch.zeros(1, 0, 0, dtype=torch.int64),
        answer_mask=torch.zeros(1, 0, 0, dtype=torch.bool),
        text_weight=torch.zeros(1, 0),
    )


def _compare(
    model: Mirasol, engine: Engine, batch: Batch, questions: list[str], looked_at: int, max_answer: int, tally: Tally
) -> None:
    """One clip in one condition; the logits are compared along the answer of question ``looked_at``."""
    encoded = model.encode(batch)
    session = Session(engine)
    for t in range(batch.video.shape[1]):
        inputs = Inputs(
            video=batch.video[:, t].numpy(),
            audio=batch.audio[:, t].numpy(),
            video_present=bool(batch.video_present[0, t]),
            audio_present=bool(batch.audio_present[0, t]),
        )
        latents = session.push_features(inputs)
        tally.note("x", latents.x, encoded.x[0, t])
        tally.note("h", latents.h, encoded.h[0, t])
        tally.chunks += 1
    prompts = [engine.prompt(question) for question in questions]
    limit = min(max_answer, model.config.max_text - max(map(len, prompts)))
    answers = _torch_answers(model, encoded, prompts, limit)
    for i, (question, prompt, expected) in enumerate(zip(questions, prompts, answers, strict=True)):
        found = list(session.answer_ids(question, limit))
        tally.answers += 1
        if i == looked_at or found != expected:
            logits = model.logits(torch.tensor([[prompt + expected]]), encoded.h, encoded.present)[0, 0]
            if i == looked_at:
                _compare_logits(engine, session, prompt + expected, logits, tally)
            if found != expected:
                _differs(engine, question, logits[len(prompt) - 1 :], found, expected, tally)


def _torch_answers(model: Mirasol, encoded: Encoded, prompts: list[list[int]], limit: int) -> list[list[int]]:
    """The greedy tokens of every answer, without the end mark."""
    lengths = torch.tensor([[len(prompt) for prompt in prompts]])
    padded = torch.full((1, len(prompts), int(lengths.max())), PAD)
    for i, prompt in enumerate(prompts):
        padded[0, i, : len(prompt)] = torch.tensor(prompt)
    answers = greedy(model.text, encoded.h, encoded.present, padded, lengths, limit)[0].tolist()
    return [ids[: ids.index(EOS)] if EOS in ids else ids for ids in answers]


def _compare_logits(engine: Engine, session: Session, ids: list[int], expected: Tensor, tally: Tally) -> None:
    states = engine.initial(TEXT)
    memory, valid = session.memory
    for token, row in zip(ids, expected, strict=True):
        logits, states = engine.text(token, memory, valid, states)
        tally.note("logits", logits[0], row)


def _differs(
    engine: Engine, question: str, logits: Tensor, found: list[int], expected: list[int], tally: Tally
) -> None:
    """Count an answer that differs; as a tie where torch itself sees no difference between the two tokens."""
    pairs = itertools.zip_longest(found, expected, fillvalue=EOS)
    place, (mine, its) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    gap = float((logits[place, its] - logits[place, mine]).abs() / logits[place].abs().max())
    if gap <= TIE:
        tally.ties += 1
    else:
        texts = [engine.tokenizer.decode(ids) for ids in (found, expected)]
        tally.different.append(f"{question!r}: {texts[0]!r}, torch {texts[1]!r}")
