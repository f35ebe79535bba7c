"""Open weights from local files: read, mapped onto the model, accounted for, written as any model is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import listing
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.pretrained.mirasol import read_earlier
from mirasol.model.pretrained.tensor_map import Found, account
from mirasol.model.pretrained.text import read_text
from mirasol.model.pretrained.vision import Pixels, read_vision
from mirasol.model.pretrained.vocabulary import Vocabulary
from mirasol.tokenizer import SPACE, Tokenizer
from mirasol.training.weights import WEIGHTS, read_config, save_weights

PIXELS = {
    "half": Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "--pixels half"),
    "imagenet": Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "--pixels imagenet"),
}
PROBLEMS_SHOWN = 40


@dataclass(frozen=True)
class Sources:
    """What to start from; what comes later in this list overrides what comes earlier."""

    earlier: Path | None = None  # folder of mirasol weights
    vision: Path | None = None  # safetensors
    text: Path | None = None  # safetensors
    pixels: str = "auto"  # `auto` or one of PIXELS: how `vision` was fed
    pieces: Path | None = None  # tokenizer.json of `text`, or of `earlier`; None: the one beside the file


@dataclass
class Report:
    """Every parameter of the model once, every tensor of the files that went nowhere, and what to know."""

    rows: list[tuple[str, str, int, str]] = field(default_factory=list)  # part, how, parameters, from what
    unused: list[tuple[str, str, int, str]] = field(default_factory=list)  # file, key, numbers, why
    notes: list[str] = field(default_factory=list)


def import_weights(config: ModelConfig, tokenizer: Tokenizer, seed: int, sources: Sources, out: Path) -> Report:
    """Build the model of ``config``, random by ``seed``, start it from ``sources`` and write it to ``out``.

    Raises:
        MirasolError: a file is no safetensors or missing, ``out`` holds a source, or tensors do not fit: all of
            them, with key, given and expected shape. Nothing is written then.
    """
    _check_sources(sources, out)
    torch.manual_seed(seed)
    model = Mirasol(config)
    report, taken, problems = Report(), Found.of(model), []
    for path, found in _read(model, tokenizer, sources):
        problems += [f"{path}: {problem}" for problem in found.problems]
        taken.tensors |= found.tensors
        taken.sources |= found.sources
        report.notes += [f"{path.name}: {note}" for note in found.notes]
        report.unused += [(path.name, key, count, why) for key, (why, count) in found.unused.items()]
    problems += [
        f"{taken.sources[name][1]}: gives {name} numbers that are not finite: the file is damaged"
        for name, tensor in taken.tensors.items()
        if not bool(tensor.isfinite().all())
    ]
    if problems:
        title = f"what does not fit the model ({len(problems)}); nothing was written"
        raise MirasolError(listing(title, problems, PROBLEMS_SHOWN))
    model.load_state_dict(model.state_dict() | taken.tensors)
    report.rows = account(model, taken)
    save_weights(out, model)
    return report


def _check_sources(sources: Sources, out: Path) -> None:
    earlier = sources.earlier and sources.earlier / WEIGHTS
    for path in (earlier, sources.vision, sources.text):
        if path is not None and not path.is_file():
            raise MirasolError(f"{path}: no such file: name a local .safetensors file")
        if path is not None and out.resolve() == path.parent.resolve():
            raise MirasolError(f"--out {out} holds {path.name}, which is read here: choose another folder")
    if sources.pieces is not None and sources.earlier is None and sources.text is None:
        raise MirasolError(f"--pieces {sources.pieces}: goes with --text or --from, and neither is given")


def _read(model: Mirasol, tokenizer: Tokenizer, sources: Sources) -> Iterator[tuple[Path, Found]]:
    if sources.earlier is not None:
        path = sources.earlier / WEIGHTS
        before = read_config(sources.earlier)
        pieces = sources.pieces if sources.text is None else None
        yield path, read_earlier(read_tensors(path), before, _our_pieces(path, before, tokenizer, pieces), model)
    if sources.vision is not None:
        pixels = _pixels(sources.vision, sources.pixels)
        tensors, settings = read_tensors(sources.vision), _beside(sources.vision, "config.json")
        yield sources.vision, read_vision(tensors, settings, pixels, model)
    if sources.text is not None:
        path, tensors = sources.text, read_tensors(sources.text)
        if "text.embedding.weight" in tensors:  # ours
            before = read_config(path.parent)
            vocabulary = _our_pieces(path, before, tokenizer, sources.pieces)
            yield path, read_earlier(tensors, before, vocabulary, model, lambda part: part == "text")
        elif "gpt_neox.embed_in.weight" in tensors:
            vocabulary = _their_pieces(path, tokenizer, sources.pieces)
            yield path, read_text(tensors, _beside(path, "config.json"), vocabulary, model)
        else:
            yield path, read_text(tensors, {}, Vocabulary({}, 0), model)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        MirasolError: it is missing, damaged, or a pickle.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise MirasolError(f"{path}: cannot be read ({error.strerror}): name a local .safetensors file") from None
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl") or head[:2] in (b"PK", b"\x80\x02"):
        raise MirasolError(
            f"{path}: a pickle, and reading one runs the code in it: never read here. Take the model's .safetensors, "
            "or convert the file where you trust it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'x.safetensors')"
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, RuntimeError) as error:
        raise MirasolError(f"{path}: no safetensors file, or a damaged one ({error}): get it again") from error
    return tensors


def _pixels(path: Path, name: str) -> Pixels:
    """How the checkpoint's model was fed: as the option says, or as the files beside it do."""
    if name != "auto":
        if name not in PIXELS:
            raise MirasolError(f"--pixels {name}: expected auto, {' or '.join(PIXELS)}")
        return PIXELS[name]
    timm = _beside(path, "config.json").get("pretrained_cfg", {})
    with _complaining(path.parent / "config.json"):
        if "mean" in timm:
            return Pixels(_three(timm["mean"]), _three(timm["std"]), "config.json")
    settings = _beside(path, "preprocessor_config.json")
    with _complaining(path.parent / "preprocessor_config.json"):
        if "image_mean" in settings:
            return Pixels(_three(settings["image_mean"]), _three(settings["image_std"]), "preprocessor_config.json")
    raise MirasolError(
        f"{path}: which pixels was it trained on? Neither preprocessor_config.json nor timm's config.json lies beside "
        "it. Put it there, or say --pixels imagenet (mean and deviation of ImageNet: DeiT, MAE, DINOv2) or --pixels "
        "half (-1..1: Google's ViTs)"
    )


def _three(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} channels, expected 3")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{numbers}, expected finite numbers")
    return numbers


def _our_pieces(path: Path, before: ModelConfig, tokenizer: Tokenizer, pieces: Path | None) -> Vocabulary:
    """Pieces of an earlier model of ours; without its tokenizer they are taken to be ours, if they are as many."""
    beside = path.parent / "tokenizer.json"
    if pieces is None and beside.is_file():
        pieces = beside
    if pieces is not None:
        texts = Tokenizer.load(pieces).pieces
        if len(texts) != before.vocabulary:
            raise MirasolError(f"{pieces}: {len(texts)} pieces, but {path} was trained with {before.vocabulary}")
        return Vocabulary.match(tokenizer.pieces, texts)
    if before.vocabulary != tokenizer.vocabulary:
        raise MirasolError(
            f"{path}: a vocabulary of {before.vocabulary} pieces, here {tokenizer.vocabulary}: which piece is which? "
            "Name the tokenizer.json it was trained with: --pieces FILE"
        )
    return Vocabulary({i: i for i in range(tokenizer.vocabulary)}, before.vocabulary)


def _their_pieces(path: Path, tokenizer: Tokenizer, pieces: Path | None) -> Vocabulary:
    """Pieces of a Hugging Face tokenizer.json; byte pieces of letters beyond ASCII match none of ours."""
    pieces = pieces or path.parent / "tokenizer.json"
    settings = _beside(pieces, pieces.name)
    if not settings:
        raise MirasolError(f"{pieces}: no such file; embeddings without their pieces are of no use: --pieces FILE")
    with _complaining(pieces):
        vocabulary = settings["model"]["vocab"]
        if isinstance(vocabulary, dict):  # BPE; unigram has a list of pieces with their scores
            ordered = list(vocabulary.items())
        else:
            ordered = [(piece[0], index) for index, piece in enumerate(vocabulary)]
        ordered += [(str(extra["content"]), int(extra["id"])) for extra in settings.get("added_tokens", ())]
        where = {str(text).replace("Ġ", SPACE): int(index) for text, index in reversed(ordered)}
        rows = {i: where[text] for i, text in enumerate(tokenizer.pieces) if text in where}
    size = int(_beside(path, "config.json").get("vocab_size", 50432))  # GPTNeoXConfig's default; may exceed the pieces
    if rows and max(rows.values()) >= size:
        raise MirasolError(
            f"{pieces}: piece {max(rows.values())}, but {path.parent / 'config.json'} says {size} pieces"
        )
    return Vocabulary(rows, size)


def _beside(path: Path, name: str) -> dict[str, Any]:
    """A JSON file in the folder of ``path``, empty if there is none."""
    beside = path.parent / name
    if not beside.is_file():
        return {}
    with _complaining(beside):
        settings = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("no JSON object")
        return settings


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise MirasolError(f"{path}: not understood ({error!r}): get it again with the weights") from error
