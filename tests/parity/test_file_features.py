"""Features that the runtime makes of a real file are those that the loader reads from the shards of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.media import SHARED, example, tone, write_media

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.media.clip import ClipSpec
from mirasol.media.decode import decode_clip
from mirasol.runtime.features import ChunkFeatures
from mirasol.runtime.sources.files import FileSource

CLIP = ClipSpec(fps=8.0, chunks=4, frames_per_chunk=2, size=48, sample_rate=16000, mels=32, audio_bands=4)
# folder -> patterns of files, and how many of them shards must take: else the test would compare nothing
REAL = {
    "drone": (("video/V_*_00[12].mp4", "audio/*_00[12].flac"), 12),
    "fsdd": (("recordings/[0-9]_theo_0.wav",), 5),
    "odd": (("**/*",), 25),
}


@pytest.mark.parametrize("name", REAL)
def test_features_of_real_files(name: str, tmp_path: Path) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no real files in {SHARED}: set MIRASOL_SHARED")
    patterns, least = REAL[name]
    found = sorted(p for pattern in patterns for p in (SHARED / name).glob(pattern) if p.is_file())
    rows, files = [], {}
    for number, path in enumerate(p for p in found if p.name != "manifest.tsv"):
        files[f"media/{number}{path.suffix}"] = path
        rows.append(example(number, media=f"media/{number}{path.suffix}", split="train"))
    write_media(tmp_path / "media" / "made.mkv", frames=16, sound=tone(2.0))
    rows.append(example(len(rows), media="media/made.mkv", split="val"))  # shards want both splits
    for media, path in files.items():
        shutil.copy(path, tmp_path / media)
    write_manifest(tmp_path / "manifest.jsonl", rows)
    build_shards(tmp_path, tmp_path / "shards", CLIP, ShardsSpec(workers=1, max_rejected=1.0))
    shards = ShardDataset(tmp_path / "shards", "train")
    assert len(shards) >= least
    different = [fault for index in range(len(shards)) if (fault := compare(shards, index, tmp_path, files))]
    assert not different


def compare(shards: ShardDataset, index: int, data: Path, files: dict[str, Path]) -> str:
    """What differs between a clip of the shards and the runtime's features of its file, or nothing.

    Sound is compared behind the shards, which keep it to the bit. Pictures are compared before the shards' encoder,
    which is lossy, and behind it where it copied the stream.
    """
    clip, meta = shards.read(index), shards.meta(index)
    features, source = ChunkFeatures(CLIP, meta["chunk_seconds"]), FileSource(data / meta["media"], CLIP)
    chunks = [chunk for chunk, _ in zip(source, range(CLIP.chunks), strict=False)]
    inputs = [features.push(chunk.video, chunk.samples) for chunk in chunks]
    name, count = files[meta["media"]].name, len(inputs)
    for kind, present in (("video", clip.video_present), ("audio", clip.audio_present)):
        flags = [getattr(i, f"{kind}_present") for i in inputs]
        if flags != present[:count].tolist() or present[count:].any():
            return f"{name}: {kind} present {flags}, the loader's {present.tolist()}"
    heard = int(clip.audio_present.sum())
    if clip.audio is not None and heard:
        worst = np.abs(np.concatenate([i.audio for i in inputs])[:heard] - clip.audio[:heard]).max()
        if worst > 1e-5:
            return f"{name}: audio differs by {worst:.1e}"
    seen = int(clip.video_present.sum())
    if seen:
        mine = np.concatenate([i.video for i in inputs])[:seen]
        decoded = decode_clip(data / meta["media"], None, None, CLIP).video
        assert decoded is not None
        if not np.array_equal(mine.reshape(-1, *mine.shape[2:]), decoded[: seen * CLIP.frames_per_chunk]):
            return f"{name}: frames differ from the decoder's"
    return ""
