"""The schema of params.yaml: one frozen dataclass per section, defined in the package that uses it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin, get_type_hints

from mirasol.data.shards.config import ShardsSpec
from mirasol.export.config import BenchmarkSpec, ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.model.config import ModelSpec
from mirasol.pipeline.params.checks import PHASES
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import TokenizerSpec
from mirasol.training.config import PhaseConfig, TrainingConfig

T = TypeVar("T")

SHARED = "phases"
SETS = "sets"  # optional: data set -> keys of `finetune` that it changes
SETS_DOC = "keys of `finetune` for a data set, which `mirasol workspace --adapter NAME` writes there"
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


def _plain(number: float) -> str:
    """A bound without a needless exponent or decimal point."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
