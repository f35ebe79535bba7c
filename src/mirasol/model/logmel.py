"""Log-mel of sound on the device, as the audio branch reads it (P 3.1): the numbers of ``mirasol.media.log_mel``.

Plain torch operators of fixed shape. The spectrum is ``rfft`` and no pair of matrix products, which take some
twenty times the work and lose digits where products round to TF32 or bf16 (docs/decisions/0038). ONNX has it as the
operator DFT (opset 17); TensorRT has not, and would need the products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mirasol.model.batch import Waveform

BLOCK = 16384  # frames transformed at a time: bounds the memory of a large batch
FULL_SCALE = 32768.0  # of 16-bit sound
SILENT = 1e-3  # above silence: what pooling may add to it


class LogMel(nn.Module):
    """Chunks of sound to standardised, pooled log-mel. It has no weights and leaves nothing in a checkpoint."""

    hann: Tensor
    filters: Tensor

    def __init__(
        self,
        filters: Tensor,
        *,
        window: int,
        hop: int,
        columns: int,
        floor: float,
        mean_db: float,
        scale_db: float,
        relative: bool,
    ) -> None:
        """Make the window.

        Args:
            filters: mel filters [bins, M]; the transform has 2 * (bins - 1) samples, at least ``window``.
            window, hop: samples of a frame, and from one frame to the next.
            columns: A, which the frames of a chunk are pooled to.
            floor: power below which all is silence.
            mean_db, scale_db: a level of x dB becomes (x - mean) / scale.
            relative: take out each chunk's mean, save of silence (``clip.level``).

        Raises:
            ValueError: the filters are those of a transform shorter than a window.
        """
        super().__init__()
        self.window, self.hop, self.columns = window, hop, columns
        self.size = 2 * (len(filters) - 1)
        if self.size < window:
            raise ValueError(f"filters for a transform of {self.size} samples, expected at least {window}: a window")
        self.floor, self.mean_db, self.scale_db, self.relative = floor, mean_db, scale_db, relative
        turn = torch.arange(window, dtype=torch.float64) * (2 * torch.pi / window)
        hann = 0.5 - 0.5 * torch.cos(turn)
        self.register_buffer("hann", (hann * 2 / hann.sum()).to(filters.dtype), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.silence = (10.0 * math.log10(floor) - mean_db) / scale_db

    def forward(self, chunks: Tensor, samples: Tensor) -> Tensor:
        """Chunks [..., W] of ``samples`` [...] samples each to features [..., A, M].

        A chunk begins ``window`` samples behind the start of its row, with what came before it in front; one that is
        shorter than a hop ends a hop behind that place instead. What follows its samples does not count. int16, or
        floating point in [-1, 1].

        Raises:
            ValueError: rows with no room for a frame, or lengths of another shape.
        """
        if chunks.shape[-1] < self.window + self.hop:
            raise ValueError(
                f"chunks has shape {tuple(chunks.shape)}, expected [..., W] with W at least {self.window + self.hop}"
            )
        if samples.shape != chunks.shape[:-1]:
            raise ValueError(f"samples has shape {tuple(samples.shape)}, expected {tuple(chunks.shape[:-1])}")
        rows = max(1, BLOCK * self.hop // chunks.shape[-1])
        flat, lengths = chunks.reshape(-1, chunks.shape[-1]).split(rows), samples.reshape(-1).split(rows)
        pooled = torch.cat([self._pooled(*block) for block in zip(flat, lengths, strict=True)])
        return self._levelled(pooled).unflatten(0, samples.shape)

    def heard(self, sound: Waveform, present: Tensor) -> Tensor:
        """The features [B, T, A, M] of a batch's sound: each of its n waveforms masked, then added by their shares.

        Chunks that are not ``present``, bool [B, T], are silence.
        """
        there = present[:, None, :, None, None]
        mel = self(sound.chunks, sound.samples)  # [B, n, T, A, M]
        mel = torch.where(there, mel, self.silence)
        mel = torch.where(hidden(sound.masks, *mel.shape[2:]), _mean(mel, there), mel)
        return (mel * sound.shares.to(mel.dtype)[..., None, None, None]).sum(1)

    def _pooled(self, chunks: Tensor, samples: Tensor) -> Tensor:
        """[R, W] -> [R, A, M]."""
        sound = chunks.to(self.hann.dtype)
        if not chunks.is_floating_point():
            sound = sound / FULL_SCALE
        # frame i ends i + 1 hops behind the beginning of the chunk, and is a window long
        frames = sound.unfold(-1, self.window, self.hop)[:, 1:]
        spectrum = torch.fft.rfft(frames * self.hann, self.size)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = torch.log10((power @ self.filters).clamp(min=self.floor / 2))
        mel = (mel * (10.0 / self.scale_db) - self.mean_db / self.scale_db).clamp(min=self.silence)
        weights = pooling((samples // self.hop).clamp(min=1), self.columns, mel.shape[1]).to(mel.dtype)
        # what is above silence is pooled, so that silence is exact
        return weights @ (mel - self.silence) + self.silence

    def _levelled(self, pooled: Tensor) -> Tensor:
        if not self.relative:
            return pooled
        silent = (pooled <= self.silence + SILENT).flatten(-2).all(-1)[..., None, None]
        return torch.where(silent, pooled, pooled - pooled.mean((-2, -1), keepdim=True))


def pooling(counts: Tensor, columns: int, frames: int) -> Tensor:
    """Weights [..., A, F] of the first ``counts`` [...] of F frames in the mean over each of A columns of time.

    Column a covers frames a * count / A to (a + 1) * count / A; whole numbers until the last division.
    """
    count = counts[..., None, None]
    column = torch.arange(columns, device=counts.device)[:, None]
    frame = torch.arange(frames, device=counts.device)
    high = torch.minimum((column + 1) * count, (frame + 1) * columns)
    low = torch.maximum(column * count, frame * columns)
    return (high - low).clamp(min=0) / count


def hidden(masks: Tensor, chunks: int, columns: int, mels: int) -> Tensor:
    """Where masks [B, n, 4] hide features, bool [B, n, T, A, M]; see :class:`mirasol.model.batch.Waveform`."""
    time = torch.arange(chunks * columns, device=masks.device).view(chunks, columns, 1)
    band = torch.arange(mels, device=masks.device)
    t0, t1, m0, m1 = (edge[..., None, None, None] for edge in masks.unbind(-1))
    return ((time >= t0) & (time < t1)) | ((band >= m0) & (band < m1))


def _mean(mel: Tensor, there: Tensor) -> Tensor:
    """The mean over the chunks that are there, [B, n, 1, 1, 1]; 0 where none is."""
    count = there.sum((2, 3, 4), keepdim=True) * (mel.shape[-2] * mel.shape[-1])
    return (mel * there).sum((2, 3, 4), keepdim=True) / count.clamp(min=1)
