"""Our shards, decoded, for your own WebDataset pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, install
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.shards.format import read_index


def webdataset(shards: str | Path, split: str) -> Any:
    """A ``webdataset.DataPipeline`` over the clips of ``split``: add ``.shuffle``, ``.map``, ``.batched`` as usual.

    A sample is a dict, T chunks of K frames:

    - ``__key__`` and ``__url__``: the key of the clip and the name of its tar;
    - ``video`` uint8 [T, K, size*3/2, size], planar YUV 4:2:0, or ``None`` for a clip without a picture;
    - ``audio`` float32 [T, A, M], log-mel features, or ``None`` for a clip without sound;
    - ``waveform`` float32 [S] at ``clip.sample_rate``, or ``None``;
    - ``video_present``, ``audio_present`` bool [T];
    - ``json``: examples (prompts and answers), times and hashes.

    Tars are divided among nodes and workers as in webdataset. Reading checks every hash. Works without torch.

    Args:
        shards: folder of a finished set of shards, as written by the shards stage.
        split: train, val or test.

    Raises:
        MirasolError: the shards are unfinished, have no such split, or webdataset is not installed. During iteration
            :class:`mirasol.data.shards.format.DamagedClip` names a damaged clip.
    """
    try:
        import webdataset as wds
    except ModuleNotFoundError as error:
        raise MirasolError(f"{error}: run {install('train')}") from error
    dataset = ShardDataset(shards, split)
    tars = read_index(dataset.folder)["splits"][split]
    ends = list(itertools.accumulate(int(tar["clips"]) for tar in tars))
    clips = {tar["name"]: range(end - tar["clips"], end) for tar, end in zip(tars, ends, strict=True)}
    pipeline = wds.FluidWrapper(wds.SimpleShardList(list(clips)))
    return pipeline.compose(wds.split_by_node, wds.split_by_worker, partial(_read, dataset, clips))


def _read(
    dataset: ShardDataset, clips: Mapping[str, range], tars: Iterable[Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """The decoded clips of some tars."""
    for tar in tars:
        for number in clips[tar["url"]]:
            clip = dataset.read(number)
            yield {
                "__key__": dataset.keys[number],
                "__url__": tar["url"],
                "video": clip.video,
                "audio": clip.audio,
                "waveform": dataset.waveform(number),
                "video_present": clip.video_present,
                "audio_present": clip.audio_present,
                "json": clip.meta,
            }
