"""Log-mel on a GPU equals the log-mel of the loader, and training takes waveforms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import small_world, train

from mirasol.data.loading.loader import log_mel_of
from mirasol.data.loading.waveform import chunk_lengths, cut
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import clip_audio


@pytest.mark.gpu
@pytest.mark.parametrize("spec", [ClipSpec(), ClipSpec(fps=7.3, frames_per_chunk=3, mels=64, level="relative")])
def test_gpu_equals_the_loader(spec: ClipSpec) -> None:
    sound = np.random.default_rng(0).normal(0, 4000, int(chunk_lengths(spec).sum())).astype(np.int16)
    found = cut(sound, spec, spec.chunks)
    mel = log_mel_of(spec).cuda()(torch.from_numpy(found.chunks).cuda(), torch.from_numpy(found.samples).cuda())
    expected = clip_audio(sound / np.float32(32768), spec, spec.chunk_seconds, spec.chunks)
    np.testing.assert_allclose(mel[0].cpu().numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.gpu
def test_training_on_a_gpu_takes_waveforms(tmp_path: Path) -> None:
    world = small_world(tmp_path / "world")
    changed = {"steps": 2, "spec_time": 0.3, "mixup": 0.4, "jitter": 1}
    here = train(world, tmp_path / "cpu", **changed, accelerator="cpu")
    there = train(world, tmp_path / "gpu", **changed, accelerator="gpu")
    assert here["steps"] == there["steps"]
    assert list((tmp_path / "gpu" / "runs" / "cache").glob("*/train.waves-1"))
