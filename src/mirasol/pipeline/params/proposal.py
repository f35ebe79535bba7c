"""A params file for a data set that was probed: every key stated, the chosen ones with their reason.

A function of the facts alone: the same data get the same file on every machine. The sizes are those that two cores
train within an hour; a file with other choices is one edit away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mirasol.data.manifest import UNLABELLED
from mirasol.data.probe import Facts
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.params.schema import OWN, SHARED, sections

MARK = "# Proposed by `mirasol data probe`"
SEEN = 32  # frames of a chunk; half as many where there are several
EQUAL = 0.95  # of the longest clip: a clip without a whole chunk at the common rate is refused
CHUNK, CHUNKS = 2.5, 4  # seconds of a chunk and chunks of a clip, at most
SIDES = (48, 96)  # pixels, multiples of the cells and of the reconstruction of the preset `own`
FEW = 5000  # training clips, below which a model learns them by heart
PRESENTED = (4800, 9600)  # clips shown in all, at least and at most
HEARD = 3  # times as many where there is no picture: sound alone takes a fraction of the time
LEFT_RIGHT = {"left", "right", "leftwards", "rightwards", "clockwise", "anticlockwise", "counterclockwise"}
PLACES = LEFT_RIGHT | {
    "top",
    "bottom",
    "upper",
    "lower",
    "corner",
    "edge",
    "middle",
    "centre",
    "center",
    "above",
    "below",
}
ORDER = {"first", "last", "before", "after", "then", "begin", "beginning", "start", "end", "begins", "ends", "starts"}
PASSES = 20  # over the clips without texts
DETAIL = 64  # pixels of a source's shorter side from which on more than 48 are worth their time

Chosen = dict[str, tuple[Any, str]]  # `section.key` -> value and reason


def propose(facts: Facts, start: Mapping[str, Any] = {}) -> Chosen:
    """Values of params.yaml with a reason each.

    Args:
        start: values that follow from the weights to start from (:class:`mirasol.pipeline.own.Start`).
    """
    chosen = (
        _clip(facts, from_weights=bool(start) and start.get("model.preset") != "own")
        | _texts(facts)
        | _regularisation(facts, from_weights=bool(start))
        | _training(facts, from_weights=bool(start))
    )
    if facts.unlabelled and chosen["clip.chunks"][0] < 2:
        chosen |= _in_two_chunks(chosen)
    return chosen | {key: (value, "as in the weights that it starts from") for key, value in start.items()}


def _clip(facts: Facts, *, from_weights: bool) -> Chosen:
    lengths = facts.seconds
    longest = lengths.high or 4.0
    spread = lengths.low < EQUAL * lengths.high or longest > 30.0
    chunks, each = _chunks(facts, longest, from_weights=from_weights)
    # at one rate the shortest clip must fill a chunk: one that does not is refused
    fps = chunks * each / (longest if spread else lengths.low or longest)
    if not spread:  # the whole of the longest clip
        fps = math.floor(1000 * fps) / 1000
    fps = min(240.0, max(round(fps, 3), 0.05))
    bands = max(4, min(16, 4 * round(32 / fps / 4))) if facts.heard else 4
    side = min(facts.width.middle, facts.height.middle) if facts.seen else 0.0
    span = f"clips take {lengths.low:g} to {longest:g} s"
    return {
        "clip.sampling": (
            "spread" if spread else "rate",
            f"{span}: frames over the whole clip, whatever its length"
            if spread
            else f"{span}: one rate shows all of it",
        ),
        "clip.fps": (fps, f"{chunks * each} frames reach the end of {longest:g} s"),
        "clip.chunks": (chunks, f"{chunks * each} frames of a clip"),
        "clip.frames_per_chunk": (each, "motion shows between the frames of a chunk" if each > 4 else "as the weights"),
        "clip.size": (
            SIDES[1] if side >= DETAIL and not from_weights else SIDES[0],
            f"the source has {side:g} pixels" if facts.seen else "no picture",
        ),
        "clip.audio_bands": (bands, "about 32 columns of sound a second" if facts.heard else "no sound"),
        "clip.level": (
            "relative" if facts.heard and each / fps >= 0.5 else "absolute",
            "recordings of any gain" if each / fps >= 0.5 else "a chunk is too short to lose its level",
        ),
        "model.preset": ("own", "few tubes, and the motion that the camera did not make"),
        "model.max_chunks": (max(16, chunks), "a stream remembers a whole clip"),
    }


def _chunks(facts: Facts, longest: float, *, from_weights: bool) -> tuple[int, int]:
    """Chunks of a clip, and frames of a chunk: a multiple of 4."""
    filmed = longest * ((facts.frames_per_second.middle or 30.0) if facts.seen else 240.0)  # frames
    if from_weights:
        return max(1, min(8, math.ceil(min(filmed, SEEN) / 4 - 1e-6))), 4
    chunks = max(1, min(CHUNKS, math.ceil(longest / CHUNK)))
    most = SEEN if chunks == 1 else SEEN // 2
    return chunks, max(4, min(most, 4 * math.ceil(filmed / chunks / 4 - 1e-6)))


def _in_two_chunks(chosen: Chosen) -> Chosen:
    """The clip of one chunk in two: without texts, one chunk is predicted from the one before."""
    why = "without texts a chunk is predicted from the one before it"
    frames, fps = chosen["clip.frames_per_chunk"][0], chosen["clip.fps"][0]
    each = max(4, frames // 2 // 4 * 4)
    rate = min(240.0, round(fps * 2 * each / frames, 3))
    return {"clip.chunks": (2, why), "clip.frames_per_chunk": (each, why), "clip.fps": (rate, why)}


def _texts(facts: Facts) -> Chosen:
    answer = facts.longest_answer + 3  # a token a character at most, and the end
    text = max(facts.longest_text + 8, answer + 8)
    pieces = facts.characters + 16
    large = 256 if facts.training >= FEW or sum(len(q.answers) for q in facts.questions) > 50 else 64
    return {
        "tokenizer.vocabulary": (max(large, pieces), f"{facts.characters} different characters"),
        "tokenizer.max_text": (
            min(8192, 8 * math.ceil(text / 8)),
            f"the longest text has {facts.longest_text} characters",
        ),
        "evaluate.max_answer": (max(8, answer), f"the longest answer has {facts.longest_answer} characters"),
        "finetune.texts_per_clip": (max(1, min(13, facts.texts_per_clip)), "questions of a clip"),
    }


def _regularisation(facts: Facts, *, from_weights: bool) -> Chosen:
    few = facts.training < FEW
    why = f"{facts.training:,} clips are soon learnt by heart" if few else f"{facts.training:,} clips"
    flips, places = facts.words & LEFT_RIGHT, facts.words & PLACES
    order = facts.words & ORDER
    seen, heard = bool(facts.seen), bool(facts.heard)
    both = seen and heard
    drop = 0.1 if few else 0.05
    single = len(facts.questions) == 1 and facts.texts_per_clip == 1 and not seen
    return {
        "phases.dropout": (0.1 if few else 0.0, why),
        "phases.label_smoothing": (0.1 if few else 0.0, why),
        "phases.weight_decay": (0.05 if few else 0.01, why),
        "phases.crop": (
            0.7 if few and seen and not places else 1.0,
            f"texts name places: {', '.join(sorted(places))}" if places else why if seen else "no picture",
        ),
        "phases.flip": (
            0.5 if few and seen and not flips else 0.0,
            f"texts say {', '.join(sorted(flips))}"
            if flips
            else "no text speaks of left and right"
            if seen
            else "no picture",
        ),
        "phases.mixup": (
            0.2 if few and single else 0.0,
            "two motions are none" if seen else why if single else "several questions a clip",
        ),
        "phases.jitter": (
            1 if few and from_weights and not order and facts.seconds.high >= 2.0 else 0,
            f"texts ask for an order: {', '.join(sorted(order))}" if order else why if from_weights else "few chunks",
        ),
        "phases.spec_time": (0.1 if few and heard else 0.0, why if heard else "no sound"),
        "phases.spec_mel": (0.1 if few and heard else 0.0, why if heard else "no sound"),
        "phases.mute": (drop if both else 0.0, "neither may do all the work" if both else "one modality alone"),
        "phases.blank": (drop if both else 0.0, "neither may do all the work" if both else "one modality alone"),
        "phases.video_weight": (0.03 if seen else 0.0, "picture" if seen else "no picture to reconstruct"),
        "phases.audio_weight": (0.03 if heard else 0.0, "sound" if heard else "no sound to reconstruct"),
    }


def _training(facts: Facts, *, from_weights: bool) -> Chosen:
    clips, val = facts.training, facts.clips.get("val", 0)
    batch = 16 if clips >= 32 else 8
    least, most = (n * (1 if facts.seen else HEARD) for n in PRESENTED)
    shown = min(max(60 * clips, least), max(most, 2 * clips))
    steps = max(20, shown // batch)
    captions, sounds = bool(facts.tasks.get("caption")), bool(facts.tasks.get("audio_class"))
    chooses = val >= 10
    split = "test" if facts.clips.get("test") else "val"
    found: Chosen = {
        "phases.batch_size": (batch, f"{clips:,} training clips"),
        "training.threads": (1, "a process each for the halves of a step is faster than two threads"),
        "training.micro_batch": (batch // 2, "two halves of a step: two cores share it"),
        "phases.optimizer": ("muon", "learns in half the steps of adamw on the built-in world"),
        "phases.ema": (0.99 if steps >= 200 else 0.0, "an average jumps less from one evaluation to the next"),
        "phases.val_clips": (max(1, min(256, val)), f"{val:,} clips of the val split"),
        "phases.keep": (
            "best" if chooses else "last",
            f"{val:,} val clips {'' if chooses else 'cannot '}choose weights",
        ),
        "phases.patience": (6 if chooses else 0, "later steps only learn by heart" if chooses else "no choice"),
        "phases.caption_weight": (0.3 if captions else 0.0, "captions" if captions else "no caption"),
        "finetune.tasks": ("qa audio_class" if sounds else "qa", "what the rows ask"),
        "finetune.steps": (steps, f"{shown:,} clips shown, each {shown / max(1, clips):.0f} times"),
        "finetune.warmup": (max(1, steps // 10), "a tenth of the steps"),
        "finetune.checkpoint_every": (max(5, steps // 15), "fifteen evaluations"),
        "finetune.lr": (5e-4 if from_weights else 1e-3, "trained weights" if from_weights else "random weights"),
        "evaluate.split": (split, f"{facts.clips.get(split, 0):,} clips that no training sees"),
    }
    for phase, has in (("pretrain", captions or sounds), ("audio_pretrain", sounds)):
        some = max(20, steps // 4)
        why = "a quarter of the finetuning" if has else "no row of its tasks: it hands its weights on"
        found |= {
            f"{phase}.steps": (some if has else 1, why),
            f"{phase}.warmup": (some // 10 if has else 0, why),
            f"{phase}.checkpoint_every": (some, why),
            f"{phase}.lr": (1e-3, why),
        }
    named = [task for task, has in (("caption", captions), ("audio_class", sounds)) if has]
    why = "what the rows say" if named else "no captions, no clips without texts (--unlabelled): it learns nothing"
    found["pretrain.tasks"] = (" ".join(named) or "caption", why)
    return found | (_without_texts(facts, named, batch) if facts.unlabelled else {})


def _without_texts(facts: Facts, named: list[str], batch: int) -> Chosen:
    """`pretrain` on clips without texts, next to those of the tasks ``named``."""
    clips = facts.unlabelled
    steps = min(max(PASSES * clips, PRESENTED[0]), max(PRESENTED[1], 2 * clips)) // batch
    passes = f"{clips:,} clips without texts, each {steps * batch / clips:.0f} times"
    found: Chosen = {
        "pretrain.tasks": (" ".join([*named, UNLABELLED]), "clips without texts teach picture and sound"),
        "pretrain.steps": (steps, passes),
        "pretrain.warmup": (steps // 10, "a tenth of the steps"),
        "pretrain.checkpoint_every": (steps // 5, "five evaluations"),
        "pretrain.lr": (1e-3, "as for captions"),
        "model.audio_reconstruction": (
            bool(facts.heard),
            "sound to learn from without texts" if facts.heard else "no sound",
        ),
    }
    if not named:
        found |= {
            f"pretrain.{key}": (off, "no answer chooses weights") for key, off in (("keep", "last"), ("patience", 0))
        }
    return found


def as_yaml(chosen: Chosen, about: str) -> str:
    """The whole params file with the reasons as comments; ``about`` is one line on the data."""
    lines = [f"{MARK}: {about}.", "# Every reason stands behind its value; change what you know better.", ""]
    for name, section in sections().items():
        lines.append(f"{name}:")
        for key in section.keys.values():
            path = f"{name}.{key.name}"
            if name in PHASES and key.name not in OWN and path not in chosen:
                continue
            value, why = chosen.get(path, (_OTHERS.get(path, key.default), ""))
            lines.append(f"  {key.name}: {_plain(value)}" + (f"  # {why}" if why else ""))
        lines.append("")
    return "\n".join(lines)


# What the built-in world's file and the recipes set otherwise than the schema.
_OTHERS = {
    "shards.crf": 18,
    "pretrain.trained": "audio vit tubes combiner latent reconstruction cross_attention",
    "audio_pretrain.tasks": "audio_class",
    "audio_pretrain.trained": "audio",
    f"{SHARED}.texts_per_clip": 2,
    "export.precisions": "int8",
}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else repr(value) if isinstance(value, float) else str(value)
