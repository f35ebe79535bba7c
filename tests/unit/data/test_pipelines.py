"""Our shards in a WebDataset pipeline: the clips of ShardDataset, each once, divided among nodes and workers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.pipelines import webdataset


def test_clips_are_those_of_the_shards(tiny_shards: TinyShards) -> None:
    dataset = ShardDataset(tiny_shards.folder, "train")
    samples = list(webdataset(tiny_shards.folder, "train"))
    assert [sample["__key__"] for sample in samples] == dataset.keys
    assert [sample["__url__"] for sample in samples] == [f"train-0000{n // 3}.tar" for n in range(8)]
    for number, sample in enumerate(samples):
        clip = dataset.read(number)
        assert sample["json"] == clip.meta
        for name in ("video", "audio", "video_present", "audio_present"):
            np.testing.assert_array_equal(sample[name], getattr(clip, name))
        np.testing.assert_array_equal(sample["waveform"], dataset.waveform(number))
    assert [sample["audio"] is None for sample in samples].count(True) == 4
    assert samples[0]["video"].dtype == np.uint8 and samples[0]["waveform"].dtype == np.float32


def test_stages_follow_as_in_any_pipeline(tiny_shards: TinyShards) -> None:
    prompts = webdataset(tiny_shards.folder, "val").map(lambda sample: sample["json"]["examples"][0]["prompt"])
    assert sorted(prompts.shuffle(10)) == ["Describe the clip."] * 4
    batches = list(webdataset(tiny_shards.folder, "train").map(lambda s: {"key": s["__key__"]}).batched(3))
    assert [len(batch["key"]) for batch in batches] == [3, 3, 2]


def test_nodes_and_workers_share_the_tars(tiny_shards: TinyShards, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        keys.append([sample["__key__"] for sample in webdataset(tiny_shards.folder, "train")])
    assert [len(part) for part in keys] == [5, 3]
    monkeypatch.delenv("RANK")
    pipeline = webdataset(tiny_shards.folder, "train").map(_key)
    loaded = list(torch.utils.data.DataLoader(pipeline, batch_size=None, num_workers=2))
    expected = ShardDataset(tiny_shards.folder, "train").keys
    assert sorted(loaded) == sorted(expected) == sorted(keys[0] + keys[1])
    assert [s["__key__"] for s in pickle.loads(pickle.dumps(webdataset(tiny_shards.folder, "train")))] == expected


def _key(sample: dict[str, object]) -> object:
    return sample["__key__"]


def test_it_works_without_torch(tiny_shards: TinyShards) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mirasol.data.pipelines import webdataset\n"
        f"print(len(list(webdataset({str(tiny_shards.folder)!r}, 'test'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4"


def test_a_missing_set_or_split_is_an_error(tiny_shards: TinyShards, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"shards\.json: no such file: make the shards with"):
        webdataset(tmp_path, "train")
    with pytest.raises(MirasolError, match="no clip in the split other"):
        webdataset(tiny_shards.folder, "other")
