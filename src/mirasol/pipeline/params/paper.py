"""What S 4 says about training, line by line, and the keys of a params file that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mirasol.pipeline.params.load import Resolved

SOUNDS = ("vggsound", "kinetics-sounds", "epic-sounds")
LONG = ("activitynet-qa", "nextqa-oe")
ABOVE_ZERO, SET = "above 0", "stated"  # S 4 gives no number
ALL_BUT_TEXT = "audio vit tubes combiner latent reconstruction cross_attention"


@dataclass(frozen=True)
class Line:
    """One statement of the paper, and the value of each key that holds it.

    A key is `section.key`, or `sets.NAME.key` for the finetuning of a data set. ``ABOVE_ZERO`` and ``SET`` stand for
    numbers and texts that the paper leaves open.
    """

    part: str
    says: str
    wanted: dict[str, Any]


def _sounds(key: str, value: Any) -> dict[str, Any]:
    return {f"sets.{name}.{key}": value for name in SOUNDS}


LINES = (
    Line("model", "the main model: 3 B parameters, ViT-H, 18 text layers, 8 of the combiner", {"model.preset": "base"}),
    Line("model", "video and audio share the ViT (P 3.1)", {"model.vit": "preset"}),
    Line("model", "Transformer Combiner (P 3.2)", {"model.combiner": "transformer"}),
    Line("model", "m = 32 (P 3.6), the last features of a chunk", {"model.num_queries": 32, "model.queries": "last"}),
    Line("model", "16 chunks (P 3.6), which do not overlap (P 3.3)", {"clip.chunks": 16, "model.overlap": 0}),
    Line("model", "causal latent model, also towards x_{t+1} (P 3.3)",
         {"model.latent": "causal", "pretrain.latent_target_gradient": True,
          "finetune.latent_target_gradient": True}),
    Line("model", "0.75 % of combiner features masked (P 3.6)",
         {"pretrain.feature_mask": 0.0075, "finetune.feature_mask": 0.0075}),
    Line("model", "400 M weights of the vocabulary at a width of 1536", {"tokenizer.vocabulary": 256000}),
    Line("model", "25 frames a second, one band of the spectrogram for each (P 3.1)",
         {"clip.fps": 25.0, "clip.audio_bands": 1}),
    Line("pretraining", "video-text pairs", {"pretrain.tasks": "caption"}),
    Line("pretraining", "backbones and cross-attention from MaMMUT (not public), the rest random",
         {"training.init": SET}),
    Line("pretraining", "text backbone frozen, all else trains", {"pretrain.trained": ALL_BUT_TEXT}),
    Line("pretraining", "all losses of equal weight",
         {"pretrain.text_weight": 1.0, "pretrain.latent_weight": 1.0, "pretrain.video_weight": 1.0}),
    Line("pretraining", "learning rate 1e-5", {"pretrain.lr": 1e-5}),
    Line("pretraining", "batch of 32", {"pretrain.batch_size": 32}),
    Line("pretraining", "224 x 224", {"pretrain.size": 224}),
    Line("pretraining", "128 frames, 8 in each chunk", {"pretrain.frames_per_chunk": 8}),
    Line("pretraining", "no dropout and no label smoothing named",
         {"pretrain.dropout": 0.0, "pretrain.label_smoothing": 0.0}),
    Line("audio pretraining", "AudioSet-2M: the text of the class names", {"audio_pretrain.tasks": "audio_class"}),
    Line("audio pretraining", "only the audio weights train", {"audio_pretrain.trained": "audio"}),
    Line("finetuning", "all parameters train", {"finetune.trained": "all"}),
    Line("finetuning", "text loss 10-fold",
         {"finetune.text_weight": 10.0, "finetune.latent_weight": 1.0, "finetune.video_weight": 1.0}),
    Line("finetuning", "10 epochs of MSRVTT-QA", {"finetune.epochs": 10}),
    Line("finetuning", "80 epochs of ActivityNet-QA", {"sets.activitynet-qa.epochs": 80}),
    Line("finetuning", "20 epochs of NExT-QA", {"sets.nextqa-oe.epochs": 20, "sets.nextqa-mc.epochs": 20}),
    Line("finetuning", "learning rate 5e-6", {"finetune.lr": 5e-6}),
    Line("finetuning", "weight decay 0.01", {"finetune.weight_decay": 0.01}),
    Line("finetuning", "448 x 448", {"finetune.size": 448}),
    Line("finetuning", "batch of 32", {"finetune.batch_size": 32}),
    Line("finetuning", "128 frames", {"finetune.frames_per_chunk": 8}),
    Line("finetuning", "512 frames of long videos, 32 in each chunk",
         {f"sets.{name}.frames_per_chunk": 32 for name in LONG}),
    Line("finetuning", "dropout 0.1", {"finetune.dropout": 0.1}),
    Line("finetuning", "label smoothing 0.2", {"finetune.label_smoothing": 0.2}),
    Line("video-audio", "class names as answers (S 1)", _sounds("tasks", "qa")),
    Line("video-audio", "all parameters train", _sounds("trained", "all")),
    Line("video-audio", "Mixup", _sounds("mixup", ABOVE_ZERO)),
    Line("video-audio", "SpecAugment", _sounds("spec_time", ABOVE_ZERO) | _sounds("spec_mel", ABOVE_ZERO)),
    Line("video-audio", "dropout", _sounds("dropout", ABOVE_ZERO)),
    Line("video-audio", "label smoothing", _sounds("label_smoothing", ABOVE_ZERO)),
    Line("video-audio", "learning rate 1e-5", _sounds("lr", 1e-5)),
    Line("video-audio", "Adam, default settings", _sounds("optimizer", "adam")),
    Line("video-audio", "weight decay 0.0001", _sounds("weight_decay", 1e-4)),
    Line("video-audio", "cosine decay of the rate, here always, after these steps", _sounds("warmup", SET)),
    Line("video-audio", "448 x 448", _sounds("size", 448)),
    Line("video-audio", "batch of 32", _sounds("batch_size", 32)),
    Line("video-audio", "128 frames", _sounds("frames_per_chunk", 8)),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the paper as a file has it; ``paper`` is empty where both agree."""

    part: str
    says: str
    key: str  # where the file states it
    value: str
    paper: str = ""


def compare(file: Resolved) -> list[Row]:
    """Every line of S 4 with the keys that hold it in ``file``, one row for each key that holds another value."""
    return [row for line in LINES for row in _rows(line, file)]


def _rows(line: Line, file: Resolved) -> Iterator[Row]:
    """Keys that the file states in one place, or with one value under one name, make one row."""
    found: dict[tuple[str, str], list[str]] = {}
    for path, wanted in line.wanted.items():
        value, where = _lookup(path, file)
        paper = "" if _agrees(value, wanted) else str(wanted)
        places = found.setdefault((_shown(value), paper), [])
        if where not in places:
            places.append(where)
    for (value, paper), places in found.items():
        yield Row(line.part, line.says, ", ".join(_joined(places)), value, paper)


def _joined(places: list[str]) -> list[str]:
    """`sets.{vggsound,epic-sounds}.lr` in place of a path for each set."""
    names: dict[str, list[str]] = {}
    for place in places:
        head, name, key = place.split(".") if place.startswith("sets.") else ("", "", place)
        names.setdefault(f"{head}.{{}}.{key}" if head else key, []).append(name)
    return [form.replace("{}", f"{{{','.join(sets)}}}" if len(sets) > 1 else sets[0]) for form, sets in names.items()]


def _lookup(path: str, file: Resolved) -> tuple[Any, str]:
    """The value of a key, and its place in the file."""
    head, _, rest = path.partition(".")
    if head == "sets":
        name, _, key = rest.rpartition(".")
        changes = file.sets.get(name, {})
        if key in changes:
            return changes[key], path
        if name not in file.sets:
            return None, path
        head, rest = "finetune", key
    return getattr(getattr(file.params, head), rest), file.stated[f"{head}.{rest}"]


def _agrees(value: Any, wanted: Any) -> bool:
    if wanted == SET:
        return value is not None
    if wanted == ABOVE_ZERO:
        return value is not None and value > 0
    return bool(value == wanted)


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    return '""' if value == "" else str(value).lower() if isinstance(value, bool) else str(value)
