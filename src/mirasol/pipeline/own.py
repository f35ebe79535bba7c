"""Settings and start of a training on somebody's own data: what `mirasol train`, `workspace` and `make demo` share."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, sha256_file
from mirasol.data.manifest import Example, read_manifest
from mirasol.data.probe import Facts, probe
from mirasol.model.config import ModelConfig
from mirasol.model.sizes.presets import PRESETS, VITS, Preset
from mirasol.pipeline.dvc.command import mirasol
from mirasol.pipeline.params.proposal import MARK, as_yaml, propose

ANNOTATIONS = ("annotations.csv", "annotations.jsonl")
START = Path("runs", "start")  # of a workspace: the weights that its first phase starts from
SEAL = "# Not edited: "
WEIGHTS, CONFIG, TOKENIZER = "weights.safetensors", "config.json", "tokenizer.json"
CONTRACT, SHARDS = "contract.json", Path("shards", "shards.json")


def facts_of(folder: Path, annotations: Path | None = None) -> Facts:
    """The facts about a data folder, or about a folder of media with annotations next to them.

    Raises:
        MirasolError: the folder holds neither a manifest nor annotations, or they are wrong.
    """
    if annotations is None and (folder / "manifest.jsonl").is_file():
        return probe(read_manifest(folder / "manifest.jsonl"), folder)
    found = [annotations] if annotations else [folder / name for name in ANNOTATIONS if (folder / name).is_file()]
    if len(found) != 1:
        raise MirasolError(
            f"{folder}: expected manifest.jsonl of an import, or one of {' and '.join(ANNOTATIONS)} next to the media; "
            "or name the file with --annotations"
        )
    from mirasol.tasks.generic import read_generic

    examples, missing = read_generic(found[0], folder)
    if not examples:
        raise MirasolError(f"{found[0]}: no row is left, {len(missing)} name missing files: is {folder} their folder?")
    return probe(_below(examples), folder)


def _below(examples: Sequence[Example]) -> list[Example]:
    return [dataclasses.replace(e, media=e.media.removeprefix("media/")) for e in examples]


def write_proposal(folder: Path, before: str, say: Callable[[str], None], start: Start | None = None) -> None:
    """Write the proposal for ``folder``/data to its params.yaml, unless somebody edited that.

    Args:
        before: the text of the project's params.yaml, which counts as not edited.
        start: the weights to start from.

    Raises:
        MirasolError: the data lack a split that a training needs.
    """
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.strip() not in ("", before.strip()) and not _is_sealed(text):
        say(f"note: {path} was edited and stays; delete it to get a new proposal")
        return
    try:
        facts = facts_of(folder / "data")
    except MirasolError as error:  # the shards stage says more about such media
        say(f"note: no settings are proposed, {path} stays: {error}")
        return
    facts.check_splits(folder / "data")
    chosen = propose(facts, start.values if start else {})
    clips, bare = sum(facts.clips.values()), f", {facts.unlabelled:,} without texts" if facts.unlabelled else ""
    with atomic_write(path, "w") as file:
        file.write(
            sealed(as_yaml(chosen, f"{clips:,} clips of {facts.seconds.low:g} to {facts.seconds.high:g} s{bare}"))
        )
    say(f"{path}: proposed settings, each with its reason; edit it and run again to try others")


def sealed(text: str) -> str:
    """``text`` with a last line by which :func:`write_proposal` knows that nobody edited it."""
    return f"{text.rstrip()}\n{SEAL}{hashlib.sha256(text.rstrip().encode()).hexdigest()[:16]}\n"


def _is_sealed(text: str) -> bool:
    body, mark, _ = text.rpartition(SEAL)
    return bool(mark) and text.startswith(MARK) and sealed(body) == text


@dataclass(frozen=True)
class Start:
    """Trained weights to start from."""

    weights: Path  # folder with weights.safetensors and config.json
    pieces: Path | None  # their tokenizer.json; None: the folder has none
    config: ModelConfig
    level: str = ""  # clip.level of their training; empty: not recorded near them

    @property
    def values(self) -> dict[str, Any]:
        """The values of params.yaml that follow from the weights: `section.key` -> value.

        Raises:
            MirasolError: no preset has their sizes.
        """
        return values_of(self.config) | ({"clip.level": self.level} if self.level else {})


def find_start(path: str | Path) -> Start:
    """The weights that ``path`` means: their folder, a project or workspace, or a bundle next to its weights.

    Raises:
        MirasolError: no weights are there.
    """
    path = Path(path).expanduser().resolve()
    places = [path, path / "build" / "finetune"]
    if (path / CONTRACT).is_file():  # a bundle: graphs, whose weights stay with the training
        places.append(path.parent / "finetune")
    folder = next((place for place in places if (place / WEIGHTS).is_file() and (place / CONFIG).is_file()), None)
    if folder is None:
        graphs = " (a bundle holds graphs alone)" if (path / CONTRACT).is_file() else ""
        raise MirasolError(
            f"--from {path}: no {WEIGHTS} with {CONFIG} there{graphs}: name the folder of trained weights, such as "
            "build/finetune, or the project that trained them"
        )
    near = (folder / TOKENIZER, folder.parent / "tokenizer" / TOKENIZER, path / TOKENIZER)
    try:
        config = ModelConfig.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise MirasolError(f"--from {folder / CONFIG}: not the sizes of a model of this version ({error})") from error
    pieces = next((file for file in near if file.is_file()), None)
    build = folder.parent
    return Start(folder, pieces, config, _level(path / CONTRACT, build / "bundle" / CONTRACT, build / SHARDS))


def _level(*files: Path) -> str:
    """clip.level as the first of ``files`` records it; empty if none does."""
    for file in files:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(file.read_text(encoding="utf-8"))["clip"]["level"])
    return ""


def values_of(config: ModelConfig) -> dict[str, Any]:
    """The values of params.yaml that make a model of the same shapes: `section.key` -> value.

    Raises:
        MirasolError: no preset has these sizes.
    """
    fields = [field.name for field in dataclasses.fields(Preset)]
    for name, preset in PRESETS.items():
        for vit, sizes in {"preset": preset.vit, **VITS}.items():
            wanted = dataclasses.replace(preset, vit=sizes)
            if all(getattr(config, field) == getattr(wanted, field) for field in fields):
                choices = ("combiner", "latent", "num_queries", "queries", "overlap", "audio_reconstruction")
                found = {f"model.{choice}": getattr(config, choice) for choice in choices}
                return found | {"model.preset": name, "model.vit": vit, "clip.mels": config.mels}
    raise MirasolError("--from: its sizes are those of no preset: give a params file for it with --params")


def begin_from(folder: Path, start: Start, say: Callable[[str], None]) -> None:
    """Move ``start`` to the vocabulary and sizes of the workspace ``folder``, and name it in its params.yaml.

    Rows of the embedding move with their pieces, new pieces start at random (`mirasol weights import`).

    Raises:
        MirasolError: the weights do not fit the parameters.
    """
    mirasol(folder, "stage", "tokenizer", on_line=say)
    pieces = ["--pieces", str(start.pieces)] if start.pieces else []
    words = ["weights", "import", "--from", str(start.weights), *pieces, "--out", str(START)]
    mirasol(folder, *words, on_line=say)
    pinned = f"{START.as_posix()}@{sha256_file(folder / START / WEIGHTS)[:12]}"
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(r"(?m)^( +init:).*$", rf'\g<1> "{pinned}"', text, count=1)
    if not count:
        raise MirasolError(f"{path}: no key training.init in a line by itself: add `init: {pinned}` to `training`")
    with atomic_write(path, "w") as file:
        file.write(sealed(changed.rpartition(SEAL)[0]) if _is_sealed(text) else changed)
