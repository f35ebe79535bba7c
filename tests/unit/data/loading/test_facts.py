"""The facts of a split are read once on a machine, and never those of another state of its tars."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shards import TinyShards

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.facts import Strings, Table
from mirasol.data.loading.failures import Failures
from mirasol.data.loading.reader import ShardReader
from mirasol.data.loading.samples import Clips, Wanted
from mirasol.tokenizer import Tokenizer


@pytest.fixture
def copy(tiny_shards: TinyShards, tmp_path: Path) -> Path:
    """A set that a test may damage."""
    return Path(shutil.copytree(tiny_shards.folder, tmp_path / "shards"))


def clips_of(folder: Path, tokenizer: Tokenizer, cache: Path | None, **values: Any) -> Clips:
    return Clips(ShardDataset(folder, "train", cache=cache, any_size=True), tokenizer, Wanted(("qa",)), **values)


def flip_json(folder: Path, number: int) -> str:
    """Damage the JSON of a clip of the train split in place; its key."""
    shards = ShardDataset(folder, "train")
    tar, entry = shards._places[number]
    with (folder / shards._tars.names[tar]).open("r+b") as file:
        file.seek(entry.places["json"][0])
        file.write(b"?")
    return entry.key


def test_a_second_process_reads_no_json(
    tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clips_of(tiny_shards.folder, tokenizer, tmp_path)
    monkeypatch.delattr(ShardDataset, "_file")
    second = clips_of(tiny_shards.folder, tokenizer, tmp_path)
    assert second.shard_set.keys == first.shard_set.keys
    assert repr([*second.texts]) == repr([*first.texts])


def test_with_and_without_a_cache_the_texts_are_the_same(
    tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    kept, read = (clips_of(tiny_shards.folder, tokenizer, cache) for cache in (tmp_path, None))
    assert repr([*kept.texts]) == repr([*read.texts])
    assert [kept.key(i) for i in range(len(kept))] == [read.key(i) for i in range(len(read))]


def test_a_tar_that_changes_is_read_anew(copy: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    clips_of(copy, tokenizer, tmp_path / "cache")
    key = flip_json(copy, 0)
    found = clips_of(copy, tokenizer, tmp_path / "cache", failures=Failures(None, 1.0))
    assert key not in {found.key(i) for i in range(len(found))}


def test_a_repaired_tar_is_read_anew(copy: Path, tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path) -> None:
    key = flip_json(copy, 0)
    clips_of(copy, tokenizer, tmp_path / "cache", failures=Failures(None, 1.0))
    shutil.copytree(tiny_shards.folder, copy, dirs_exist_ok=True)
    assert clips_of(copy, tokenizer, tmp_path / "cache").key(0) == key


@pytest.mark.parametrize("suffix", ["facts", "tokens"])
@pytest.mark.parametrize("size", [0, 10, 200])
def test_a_cut_file_is_written_again(
    tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path, suffix: str, size: int
) -> None:
    whole = repr([*clips_of(tiny_shards.folder, tokenizer, tmp_path).texts])
    (path,) = (tmp_path / "facts").glob(f"*.{suffix}")
    os.truncate(path, size)
    assert repr([*clips_of(tiny_shards.folder, tokenizer, tmp_path).texts]) == whole


def test_a_loader_process_gets_the_name_of_the_file(
    tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    texts = clips_of(tiny_shards.folder, tokenizer, tmp_path).texts
    sent = pickle.dumps(texts.facts)
    assert len(sent) < 300
    assert repr([*pickle.loads(pickle.dumps(texts))]) == repr([*texts])


def test_another_tokenizer_has_other_tokens(tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path) -> None:
    shards = ShardDataset(tiny_shards.folder, "train", cache=tmp_path)
    pieces = [(text, 0.0) for text in tokenizer._texts]
    other = Tokenizer([*pieces, ("xyzzy", -1.0)], tokenizer.max_text)
    assert shards.tokens(tokenizer).path != shards.tokens(other).path


def test_empty_arrays_survive_the_disk(tmp_path: Path) -> None:
    arrays = {"none": np.zeros((0, 3), np.int32), "text": np.zeros(0, np.uint8), "text_bounds": np.zeros(1, np.int64)}
    Table(arrays, {}).write(tmp_path / "table")
    found = Table.open(tmp_path / "table")
    assert (found.arrays["none"].shape, [*Strings(found, "text")]) == ((0, 3), [])


def test_a_read_error_that_has_passed_is_not_kept(
    tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ShardReader, number: int, offset: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "read", fail)
        assert ShardDataset(tiny_shards.folder, "train", cache=tmp_path).facts.notes["damaged"]
    assert not ShardDataset(tiny_shards.folder, "train", cache=tmp_path).facts.notes["damaged"]
