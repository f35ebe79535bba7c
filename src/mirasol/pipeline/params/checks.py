"""Conditions on several keys of params.yaml together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mirasol.model.config import POOLED_COMBINERS
from mirasol.model.sizes.presets import PRESETS, Preset
from mirasol.training.config import GROUPS, INIT, TASKS, UNLABELLED, are_names, is_mix

PHASES = ("pretrain", "audio_pretrain", "finetune")
WEIGHTS = ("text_weight", "latent_weight", "video_weight", "audio_weight")  # of the losses of a phase


@dataclass(frozen=True)
class Check:
    """A condition on several keys together, reported at the first of them."""

    paths: tuple[str, ...]
    holds: Callable[..., bool]
    rule: str  # in words
    figure: Callable[..., int] | None = None  # the number that the rule speaks of

    def message(self, paths: Sequence[str], values: Sequence[object]) -> str:
        """The values got, under the ``paths`` where the file states them, and the rule."""
        others = [f"{path} = {value}" for path, value in zip(paths[1:], values[1:], strict=True)]
        figure = f", here {self.figure(*values)}" if self.figure else ""
        return f"got {values[0]}{' with ' + ', '.join(others) if others else ''}, {self.rule}{figure}"


def _by_preset(figure: Callable[[Preset], int]) -> str:
    """A figure of each preset, as a rule quotes it."""
    return "(" + ", ".join(f"{name}: {figure(preset)}" for name, preset in PRESETS.items()) + ")"


def chunk_features(preset: str, size: int, frames: int, overlap: int, bands: int, mels: int) -> int:
    """n = f + s, the features of a chunk, as the model counts them but without torch; 0 where a tube does not fit.

    Args:
        preset: its name; ``size``, ``frames``, ``bands``, ``mels`` are keys of `clip`, ``overlap`` of `model`.
    """
    sizes = PRESETS[preset]
    whole = (frames + overlap, size, size)
    tubes = [*zip(sizes.tubes, sizes.tube_strides, strict=True)]
    if side := sizes.patch:  # 2D patches of the first frame
        tubes.append(((1, side, side), (whole[0], side, side)))
    steps = [[(n - e) // s + 1 for n, e, s in zip(whole, *tube, strict=True)] for tube in tubes]
    if any(n < 1 for counts in steps for n in counts):
        return 0
    columns, bins = sizes.audio_patch
    return sum(map(math.prod, steps)) + (whole[0] * bands // columns) * (mels // bins)


BLOCKS = (
    "must be a multiple of twice the preset's `reconstruction_size` "
    + _by_preset(lambda preset: preset.reconstruction_size)
    + ": blocks of pixels are averaged to it"
)
TUBES = "must, with `model.overlap`, be at least the longest tube of the preset " + _by_preset(
    lambda preset: max(tube[0] for tube in preset.tubes)
)
PATCHES = "must give a chunk at least the columns of the preset's audio patch " + _by_preset(
    lambda preset: preset.audio_patch[0]
)


def phase_checks(phase: str) -> Iterator[Check]:
    """What the settings of ``phase`` must fulfil that are 0 where `clip`, `model` or `tokenizer` hold."""
    size, chunks, frames = (f"{phase}.{key}" for key in ("size", "chunks", "frames_per_chunk"))
    yield Check(
        (f"{phase}.epochs", f"{phase}.steps"),
        lambda epochs, steps: bool(epochs) != bool(steps),
        "must be above 0 where the phase's `steps` are 0, and else 0",
    )
    yield Check(
        (size, "clip.size"),
        lambda seen, whole: not seen or whole % seen == 0,
        "must be 0 or a whole part of `clip.size`",
    )
    yield Check(
        (size, "model.preset"),
        lambda seen, preset: seen % (2 * PRESETS[preset].reconstruction_size) == 0,
        BLOCKS,
    )
    yield Check(
        (chunks, "clip.chunks"),
        lambda seen, whole: seen <= whole,
        "must be at most `clip.chunks`",
    )
    yield Check(
        (chunks, "clip.chunks", "clip.sampling"),
        lambda seen, whole, sampling: not seen or seen >= whole or sampling == "rate",
        "must be 0 under `clip.sampling: spread`",
    )
    yield Check(
        (f"{phase}.max_chunks", chunks, "clip.chunks"),
        lambda most, seen, whole: not most or most >= (seen or whole),
        "must be 0 or at least the chunks that the phase sees",
    )
    yield Check(
        (f"{phase}.patience", f"{phase}.keep"),
        lambda patience, keep: not patience or keep == "best",
        "must be 0 unless the phase's `keep` is `best`",
    )
    yield Check(
        (f"{phase}.keep", f"{phase}.tasks"),
        lambda keep, tasks: keep == "last" or tasks.split() != [UNLABELLED],
        f"must be `last` for {UNLABELLED} clips alone: no answer chooses weights",
    )
    yield Check(
        (chunks, "clip.chunks", f"{phase}.tasks"),
        lambda seen, whole, tasks: UNLABELLED not in tasks.split() or (seen or whole) > 1,
        f"must be 2 or more for {UNLABELLED} clips: they predict the next chunk",
    )
    yield Check(
        (f"{phase}.tasks", *(f"{phase}.{name}" for name in WEIGHTS[1:])),
        lambda tasks, *weights: UNLABELLED not in tasks.split() or any(weights),
        f"must not name {UNLABELLED} where the text loss is the only one",
    )
    yield Check((f"{phase}.max_text",), lambda length: not length or length >= 8, "must be 0 or at least 8")
    yield Check(
        tuple(f"{phase}.{name}" for name in WEIGHTS),
        lambda *weights: any(weights),
        f"must be above 0, or another of {', '.join(WEIGHTS[1:])}: a phase without a loss learns nothing",
    )
    yield Check(
        (frames, "clip.frames_per_chunk"),
        lambda seen, whole: not seen or whole % seen == 0,
        "must be 0 or a whole part of `clip.frames_per_chunk`",
    )
    yield Check(
        (frames, "model.overlap"),
        lambda seen, overlap: not seen or overlap < seen,
        "must be above `model.overlap`",
    )
    yield Check(
        (frames, "model.overlap", "model.preset"),
        lambda seen, overlap, preset: not seen or seen + overlap >= max(tube[0] for tube in PRESETS[preset].tubes),
        TUBES,
    )
    yield Check(
        (frames, "clip.audio_bands", "model.preset"),
        lambda seen, bands, preset: not seen or bands * seen >= PRESETS[preset].audio_patch[0],
        PATCHES,
    )
    yield Check(
        (size, frames, "model.num_queries", "model.preset", *FEATURES),
        lambda size, frames, queries, *whole: queries <= (_view_features(size, frames, *whole) or queries),
        "must leave a chunk at least `model.num_queries` features",
        lambda size, frames, _, *whole: _view_features(size, frames, *whole),
    )


def _view_features(size: int, frames: int, preset: str, *whole: int) -> int:
    """:func:`chunk_features` of a phase that sees ``size`` and ``frames``; 0 where both are those of `clip`."""
    if not size and not frames:
        return 0
    clip_size, clip_frames, *rest = whole
    return chunk_features(preset, size or clip_size, frames or clip_frames, *rest)


FEATURES = ("clip.size", "clip.frames_per_chunk", "model.overlap", "clip.audio_bands", "clip.mels")
CHECKS = (
    Check(
        ("model.max_chunks", "clip.chunks"),
        lambda most, chunks: most >= chunks,
        "must be at least `clip.chunks`: a stream remembers a whole clip",
    ),
    Check(
        ("model.queries", "model.combiner"),
        lambda queries, combiner: queries == "last" or combiner in POOLED_COMBINERS,
        f"`pooled` goes with one of the combiners {', '.join(POOLED_COMBINERS)}: choose `last`",
    ),
    Check(
        ("clip.size", "model.preset"),
        lambda size, preset: size % (2 * PRESETS[preset].reconstruction_size) == 0,
        BLOCKS,
    ),
    Check(
        ("model.overlap", "clip.frames_per_chunk"),
        lambda overlap, frames: overlap < frames,
        "must be less than `clip.frames_per_chunk`: a chunk overlaps with the one before it alone",
    ),
    Check(
        ("clip.frames_per_chunk", "model.overlap", "model.preset"),
        lambda frames, overlap, preset: frames + overlap >= max(tube[0] for tube in PRESETS[preset].tubes),
        TUBES,
    ),
    Check(
        ("clip.audio_bands", "clip.frames_per_chunk", "model.preset"),
        lambda bands, frames, preset: bands * frames >= PRESETS[preset].audio_patch[0],
        PATCHES,
    ),
    Check(
        ("clip.mels", "model.preset"),
        lambda mels, preset: mels >= PRESETS[preset].audio_patch[1],
        "must be at least the mel bands of the preset's audio patch "
        + _by_preset(lambda preset: preset.audio_patch[1]),
    ),
    Check(
        ("model.num_queries", "model.preset", *FEATURES),
        lambda queries, *sizes: queries <= (chunk_features(*sizes) or queries),  # 0: others say what does not fit
        "must be at most n, the video and audio features of a chunk",
        lambda _, *sizes: chunk_features(*sizes),
    ),
    Check(
        ("training.init",),
        lambda init: not init or INIT.fullmatch(init) is not None,
        'must be "" or FOLDER@HASH as `mirasol weights import` prints it',
    ),
    Check(
        ("evaluate.max_answer", "tokenizer.max_text"),
        lambda answer, text: answer < text,
        "must be less than `tokenizer.max_text`: the prompt takes some of it",
    ),
    Check(
        ("evaluate.max_answer", "finetune.max_text"),
        lambda answer, text: not text or answer < text,
        "must be less than `finetune.max_text` where that is not 0: the prompt takes some of it",
    ),
    *(
        Check(
            (f"{phase}.tasks",),
            lambda tasks: are_names(tasks, TASKS),
            f"must be one or more of {', '.join(TASKS)}, each once, with blanks between them",
        )
        for phase in PHASES
    ),
    *(
        Check(
            (f"{phase}.trained",),
            lambda trained: are_names(trained, GROUPS, also="all"),
            f"must be `all`, or one or more of {', '.join(GROUPS)}, each once, with blanks between them",
        )
        for phase in PHASES
    ),
    *(check for phase in PHASES for check in phase_checks(phase)),
    *(
        Check(
            (f"{phase}.warmup", f"{phase}.steps"),
            lambda warmup, steps: warmup < steps or not steps,
            "must be less than the phase's `steps`",
        )
        for phase in PHASES
    ),
    *(
        Check(
            (f"{phase}.mute", f"{phase}.blank"),
            lambda mute, blank: mute + blank <= 1,
            "must be at most 1 together with the phase's `blank`: no clip loses both",
        )
        for phase in PHASES
    ),
    *(
        Check(
            (f"{phase}.mix",),
            is_mix,
            'must be "" or data sets with weights from 1 to 9999, each once, as in "msrvtt-qa:3 vggsound:1"',
        )
        for phase in PHASES
    ),
)
