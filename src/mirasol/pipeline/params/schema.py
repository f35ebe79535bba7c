"""The schema of params.yaml: one frozen dataclass per section, defined in the package that uses it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin, get_type_hints

from mirasol.data.shards.config import ShardsSpec
from mirasol.export.config import BenchmarkSpec, ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.model.config import POOLED_COMBINERS, ModelSpec
from mirasol.model.sizes.presets import PRESETS, Preset
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import TokenizerSpec
from mirasol.training.config import GROUPS, INIT, TASKS, PhaseConfig, TrainingConfig, are_names, is_mix

T = TypeVar("T")

PHASES = ("pretrain", "audio_pretrain", "finetune")
SHARED = "phases"
SHARED_DOC = "settings of the three phases, stated once; a key that a phase states itself takes precedence there"
OWN = (
    "tasks",
    "trained",
    "steps",
    "lr",
    "warmup",
    "checkpoint_every",
)  # each phase states these: -S finetune.lr=... needs the key


def section(kind: type[T], doc: str) -> T:
    """A field of :class:`Params`: one section of the file and its meaning."""
    field: T = dataclasses.field(default_factory=kind, metadata={"doc": doc})
    return field


@dataclass(frozen=True)
class Params:
    """All of params.yaml, resolved. The file must state every key; any other key is an error."""

    clip: ClipSpec = section(ClipSpec, "how a clip is cut into chunks of picture and sound (P 3.1)")
    tokenizer: TokenizerSpec = section(TokenizerSpec, "how text becomes tokens")
    shards: ShardsSpec = section(ShardsSpec, "how clips are stored for training")
    model: ModelSpec = section(ModelSpec, "the model's sizes and choices (P 3)")
    training: TrainingConfig = section(TrainingConfig, "machine, seed and start of all training phases")
    pretrain: PhaseConfig = section(PhaseConfig, "first phase: captions, the text backbone frozen (S 4)")
    audio_pretrain: PhaseConfig = section(
        PhaseConfig, "second phase: class names of sounds, only the audio weights train"
    )
    finetune: PhaseConfig = section(PhaseConfig, "third phase: questions and answers, everything trains")
    evaluate: EvaluateSpec = section(EvaluateSpec, "how the answers are scored")
    export: ExportSpec = section(ExportSpec, "the ONNX bundle")
    benchmark: BenchmarkSpec = section(BenchmarkSpec, "how streaming is timed")


@dataclass(frozen=True)
class Key:
    """One key of a section: its type (str, int, float, bool, or dict of integers by name), default, meaning, bounds."""

    name: str
    kind: type
    default: Any
    doc: str
    ge: float | None
    gt: float | None
    le: float | None
    lt: float | None
    choices: tuple[Any, ...] | None

    def allowed(self) -> str:
        """The allowed values in words: ``one of demo, small``, ``an integer from 1 to 9``."""
        if self.choices is not None:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        words = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "names with integers"}
        if self.ge is not None and self.le is not None:
            return f"{words[self.kind]} from {self.ge:g} to {self.le:g}"
        bounds = {"from": self.ge, "above": self.gt, "up to": self.le, "below": self.lt}
        limits = [f"{word} {_plain(bound)}" for word, bound in bounds.items() if bound is not None]
        return " ".join([words[self.kind], " and ".join(limits)]) if limits else words[self.kind]

    def holds(self, value: Any) -> bool:
        """Whether ``value``, of the right type, is one of :meth:`allowed`."""
        if isinstance(value, dict):
            return all(self.holds(number) for number in value.values())
        return (
            (self.choices is None or value in self.choices)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


@dataclass(frozen=True)
class Section:
    """One section of the file: its dataclass, its meaning and its keys."""

    kind: type
    doc: str
    keys: dict[str, Key]


def sections() -> dict[str, Section]:
    """The sections by name, in the order of the file; `phases` is one of the file and not of :class:`Params`."""
    types = get_type_hints(Params)
    found: dict[str, Section] = {}
    for field in dataclasses.fields(Params):
        known = keys(types[field.name])
        if field.name == PHASES[0]:
            shared = {name: key for name, key in known.items() if name not in OWN}
            found[SHARED] = Section(types[field.name], SHARED_DOC, shared)
        found[field.name] = Section(types[field.name], field.metadata["doc"], known)
    return found


def keys(kind: type) -> dict[str, Key]:
    """Name -> key of one section's dataclass, in its order."""
    types = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        hint = types[field.name]
        found[field.name] = Key(name=field.name, kind=get_origin(hint) or hint, default=default, **field.metadata)
    return found


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


_FEATURES = ("clip.size", "clip.frames_per_chunk", "model.overlap", "clip.audio_bands", "clip.mels")
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
        "must be a multiple of twice the preset's `reconstruction_size` "
        + _by_preset(lambda preset: preset.reconstruction_size)
        + ": blocks of pixels are averaged to it",
    ),
    Check(
        ("model.overlap", "clip.frames_per_chunk"),
        lambda overlap, frames: overlap < frames,
        "must be less than `clip.frames_per_chunk`: a chunk overlaps with the one before it alone",
    ),
    Check(
        ("clip.frames_per_chunk", "model.overlap", "model.preset"),
        lambda frames, overlap, preset: frames + overlap >= max(tube[0] for tube in PRESETS[preset].tubes),
        "must, with `model.overlap`, be at least the longest tube of the preset "
        + _by_preset(lambda preset: max(tube[0] for tube in preset.tubes)),
    ),
    Check(
        ("clip.audio_bands", "clip.frames_per_chunk", "model.preset"),
        lambda bands, frames, preset: bands * frames >= PRESETS[preset].audio_patch[0],
        "times `clip.frames_per_chunk` must be at least the columns of the preset's audio patch "
        + _by_preset(lambda preset: preset.audio_patch[0]),
    ),
    Check(
        ("clip.mels", "model.preset"),
        lambda mels, preset: mels >= PRESETS[preset].audio_patch[1],
        "must be at least the mel bands of the preset's audio patch "
        + _by_preset(lambda preset: preset.audio_patch[1]),
    ),
    Check(
        ("model.num_queries", "model.preset", *_FEATURES),
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
    *(
        Check(
            (f"{phase}.warmup", f"{phase}.steps"),
            lambda warmup, steps: warmup < steps,
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


def _plain(number: float) -> str:
    """A bound without a needless exponent or decimal point."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
