"""Clips without texts on their way through all that reads a data set: counted, and no stumbling block."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.media import TINY_CLIP, write_data

from mirasol.core.errors import MirasolError
from mirasol.data import contact_sheet
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import UNLABELLED, clips_of, read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.evaluation import baselines
from mirasol.export import quantize_check
from mirasol.export.prompts import learnt_prompts
from mirasol.pipeline import paths, stages
from mirasol.pipeline.params.load import load_params
from mirasol.tasks.base.writer import summarise
from mirasol.tokenizer import Tokenizer

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Mixed:
    """Shards whose first training clip has no texts, and its key."""

    data: Path
    folder: Path
    key: str


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    root = tmp_path_factory.mktemp("mixed")
    data = write_data(root / "data")
    first, *others = clips_of(read_manifest(data / "manifest.jsonl"))
    bare = dataclasses.replace(first.examples[0], task=UNLABELLED, prompt="", answers=())
    write_manifest(data / "manifest.jsonl", [bare, *(e for clip in others for e in clip.examples)])
    build_shards(data, root / "shards", TINY_CLIP, ShardsSpec(workers=1))
    return Mixed(data, root / "shards", first.key)


def test_the_summary_of_an_import_counts_them(mixed: Mixed) -> None:
    found = summarise(read_manifest(mixed.data / "manifest.jsonl"))
    assert found["tasks"][UNLABELLED] == 1 and "" not in dict(found["answers"]["most_common"])


def test_the_contact_sheet_says_that_there_is_no_text(mixed: Mixed) -> None:
    assert contact_sheet._clip_row(ShardDataset(mixed.folder, "train"), 0).texts == ("no text",)


def test_the_linear_model_takes_no_place_for_them(mixed: Mixed) -> None:
    sources = baselines.Sources(mixed.folder)
    rows = [{"prompt": "Question 0?", "clip": "", "answers": ["answer 0"]}]
    seen: list[set[str]] = []
    original = baselines._features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_features", lambda *given: seen.append(set(found := original(*given))) or found)
        baselines.answer_all(rows, read_manifest(mixed.data / "manifest.jsonl"), sources, "test")
    train = set(ShardDataset(mixed.folder, "train").keys)
    assert seen[0] == train - {mixed.key}


def test_a_bundle_knows_no_empty_prompt(mixed: Mixed) -> None:
    assert "" not in (learnt_prompts(mixed.folder) or ("",))


def test_precisions_are_calibrated_on_clips_with_texts(mixed: Mixed) -> None:
    asked = quantize_check._asked(ShardDataset(mixed.folder, "train"), 99)
    assert len(asked) == 3 and all(questions for _, questions in asked)


def tokenizer_of(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """The tokenizer that the stage makes in ``folder`` from ``data``."""
    monkeypatch.chdir(folder)
    (folder / "data").symlink_to(data)
    stages.tokenizer(load_params(ROOT / "params.yaml"))
    return Tokenizer.load(paths.TOKENIZER)


def test_the_tokenizer_learns_nothing_from_them(mixed: Mixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokenizer_of(tmp_path, mixed.data, monkeypatch).encode("question")


def test_without_any_text_the_tokenizer_learns_the_usual_prompts(
    mixed: Mixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [e for e in read_manifest(mixed.data / "manifest.jsonl") if e.task == UNLABELLED]
    write_manifest(tmp_path / "bare" / "manifest.jsonl", rows)
    words = tokenizer_of(tmp_path, tmp_path / "bare", monkeypatch)
    assert words.decode(words.encode("describe the clip.")) == "describe the clip."


def test_texts_without_a_val_split_are_still_refused(mixed: Mixed, tmp_path: Path) -> None:
    rows = [e for e in read_manifest(mixed.data / "manifest.jsonl") if e.split != "val"]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    with pytest.raises(MirasolError, match="no usable clip in the split val"):
        build_shards(tmp_path, tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1))
