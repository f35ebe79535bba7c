"""Mirasol3B: one autoregressive model for time-aligned video and audio, one for text (P 3, figure 3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mirasol.model.audio import Audio
from mirasol.model.batch import Batch
from mirasol.model.combiners.build import build_combiner
from mirasol.model.config import ModelConfig
from mirasol.model.generation import greedy
from mirasol.model.latent import build_latent
from mirasol.model.layers import initialise
from mirasol.model.logmel import LogMel
from mirasol.model.losses import cosine_loss, latent_statistics, text_loss
from mirasol.model.overlap import Overlap
from mirasol.model.reconstruction import AudioReconstruction, VideoReconstruction
from mirasol.model.text import TextDecoder
from mirasol.model.tubes import VideoTubes
from mirasol.model.vit import ViT
from mirasol.model.yuv import downsample


@dataclass
class Encoded:
    """A batch as the aligned model sees it."""

    x: Tensor  # [B, T, m, d], combined features
    h: Tensor  # [B, T, m, d], latents
    present: Tensor  # bool [B, T], chunks that hold video or audio


class Mirasol(nn.Module):
    """The whole model. Its parts are the paper's: see docs/architecture.md."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.overlap = Overlap(config)
        self.video_tubes = VideoTubes(config)
        self.audio = Audio(config)
        self.vit = ViT(config.vit, config.dropout)
        self.combiner = build_combiner(config, self.video_tubes.places, self.audio.tokens)
        self.latent = build_latent(config)
        self.reconstruction = VideoReconstruction(config)
        self.text = TextDecoder(config)
        self.audio_reconstruction = AudioReconstruction(config) if config.audio_reconstruction else None
        self.log_mel: LogMel | None = None  # set by who feeds waveforms; it has no weights
        initialise(self)

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> dict[str, Tensor]:
        """The losses of a batch (P 3.5), unweighted, and the figures worth a curve.

        Returns:
            ``text``, ``latent``, ``video``, and ``audio`` where the model reconstructs it: scalars;
            ``text_each`` [B, Q]; and :func:`mirasol.model.losses.latent_statistics`.

        Raises:
            ValueError: a tensor of the batch does not fit the model.
        """
        check_texts(batch, self.text.embedding.weight.device)
        batch = self.hear(batch)
        encoded = self.encode(batch)
        text, text_each = self._text_loss(batch, encoded, label_smoothing)
        return {
            "text": text,
            "text_each": text_each,
            "latent": self._latent_loss(encoded),
            "video": self._video_loss(batch, encoded),
            **self._audio_loss(batch, encoded),
            **latent_statistics(encoded.x),
        }

    def encode(self, batch: Batch) -> Encoded:
        """Video and audio to latents, figure 3 from bottom to top.

        Raises:
            ValueError: a tensor of the batch does not fit the model.
        """
        batch = self.hear(batch)
        check_clips(batch, self.config, self.audio.project.weight)
        v = self.video_features(batch)  # [B, T, f, d] (P 3.1)
        a = self.audio_features(batch)  # [B, T, s, d]
        return self.join(v, a, batch)

    def video_features(self, batch: Batch) -> Tensor:
        """v_t, [B, T, f, d] (P 3.1); they do not depend on the sound."""
        video, _ = self.overlap.whole(batch.video, batch.audio, batch.video_present, batch.audio_present)
        v: Tensor = self.vit(self.video_tubes(video))
        return v

    def audio_features(self, batch: Batch) -> Tensor:
        """a_t, [B, T, s, d] (P 3.1); they do not depend on the picture."""
        _, audio = self.overlap.whole(batch.video, batch.audio, batch.video_present, batch.audio_present)
        a: Tensor = self.vit(self.audio(audio))
        return a

    def join(self, v: Tensor, a: Tensor, batch: Batch) -> Encoded:
        """Features of both modalities to latents. Of ``batch`` it only counts what is present."""
        u = torch.cat([v, a], dim=2)  # u_t = (v_t, a_t), [B, T, n, d]
        x = self.combiner(u, self._valid(batch))  # x_t = Combiner(u_1, ..., u_t) (eq. 2)
        h = self.latent(x)  # p(h_t | x_t) (P 3.3)
        return Encoded(x, h, batch.video_present | batch.audio_present)

    def hear(self, batch: Batch) -> Batch:
        """The batch with log-mel in place of a waveform (docs/decisions/0038); as it is where it has none.

        Raises:
            ValueError: the model was given no ``log_mel``, or the waveform does not fit the batch.
        """
        if batch.waveform is None:
            return batch
        if self.log_mel is None:
            raise ValueError("a batch of waveforms, and a model without `log_mel`: set it, or feed log-mel")
        check_waveform(batch)
        like = self.audio.project.weight
        with torch.no_grad(), torch.autocast(like.device.type, enabled=False):  # decibels need all 24 bits
            audio = self.log_mel.heard(batch.waveform, batch.audio_present)
        return dataclasses.replace(batch, audio=audio.to(like.dtype), waveform=None)

    def logits(self, tokens: Tensor, h: Tensor, h_present: Tensor) -> Tensor:
        """p(w_l | w_<l, h) (eq. 9): tokens int64 [B, Q, L], h [B, T, m, d], h_present bool [B, T] -> [B, Q, L, V]."""
        return self.text.head(self.text(tokens, *self.text.memory_of(h, h_present)))

    def generate(self, h: Tensor, h_present: Tensor, prompts: Tensor, lengths: Tensor, max_new: int) -> Tensor:
        """Greedy answers int64 [B, Q, max_new] to prompts [B, Q, P]: see :func:`mirasol.model.generation.greedy`."""
        return greedy(self.text, h, h_present, prompts, lengths, max_new)

    def _valid(self, batch: Batch) -> Tensor | None:
        """Which of the n features of each chunk exist, bool [B, T, n]; ``None`` for all."""
        complete = batch.complete
        if complete is None:
            complete = bool(batch.video_present.all()) and bool(batch.audio_present.all())
        if complete:
            return None
        return join_presence(batch.video_present, batch.audio_present, self.video_tubes.tokens, self.audio.tokens)

    def _text_loss(self, batch: Batch, encoded: Encoded, label_smoothing: float) -> tuple[Tensor, Tensor]:
        # A token is predicted from the one before it. Only tokens with something to predict go all the way:
        # those of a clip, in front of padding up to the clip that has most of them.
        predicted = batch.answer_mask[:, :, 1:].flatten(1)  # [B, Q*(L-1)]
        counts = predicted.sum(dim=1)
        most = int(counts.max())
        if most == 0:
            raise ValueError(f"answer_mask marks 0 of {predicted.numel()} tokens behind the first, expected at least 1")
        picked = predicted.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        real = torch.arange(picked.shape[1], device=picked.device) < counts[:, None]
        memory = self.text.memory_of(encoded.h, encoded.present)
        logits = self.text.head(self.text(batch.tokens[:, :, :-1], *memory, picked)[real])
        targets = batch.tokens[:, :, 1:].flatten(1).gather(1, picked)[real]
        texts, length = batch.tokens.shape[1], batch.tokens.shape[2] - 1
        text = (torch.arange(len(picked), device=picked.device)[:, None] * texts + picked // length)[real]
        return text_loss(logits, targets, text, batch.text_weight, label_smoothing)

    def _latent_loss(self, encoded: Encoded) -> Tensor:
        # h_t is to be x_{t+1}; x is a target without gradient, or the combiner would make it easy to predict
        if not self.latent.predicts:  # h is x itself: towards x_{t+1} it could only learn to stand still
            return encoded.x.new_zeros(())
        pair = encoded.present[:, :-1] & encoded.present[:, 1:]
        return cosine_loss(encoded.h[:, :-1], encoded.x[:, 1:], pair[:, :, None])

    def _video_loss(self, batch: Batch, encoded: Encoded) -> Tensor:
        pair = encoded.present[:, :-1] & batch.video_present[:, 1:]
        small = downsample(batch.video[:, 1:], self.config.reconstruction_size, encoded.h.dtype)
        predicted = self.reconstruction(encoded.h[:, :-1].flatten(0, 1))
        return cosine_loss(predicted, self.reconstruction.target(small).flatten(0, 1), pair.flatten()[:, None])

    def _audio_loss(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        if self.audio_reconstruction is None:
            return {}
        pair = encoded.present[:, :-1] & batch.audio_present[:, 1:]
        predicted = self.audio_reconstruction(encoded.h[:, :-1].flatten(0, 1))
        target = self.audio_reconstruction.target(batch.audio[:, 1:].flatten(0, 1))
        return {"audio": cosine_loss(predicted, target, pair.flatten()[:, None])}


def join_presence(video: Tensor, audio: Tensor, video_tokens: int, audio_tokens: int) -> Tensor:
    """Presence of the two modalities, bool [...], as presence of the features of a chunk, bool [..., n]."""
    v = video[..., None].expand(*video.shape, video_tokens)
    a = audio[..., None].expand(*audio.shape, audio_tokens)
    return torch.cat([v, a], dim=-1)


def check_clips(batch: Batch, config: ModelConfig, like: Tensor) -> None:
    """Raise ``ValueError``, with what was given and what is expected, unless video and audio fit the model.

    ``like`` is one of its weights, for type and device.
    """
    clips, chunks = batch.video.shape[:2]
    expected = {
        "video": (clips, chunks, config.frames_per_chunk, config.size * 3 // 2, config.size),
        "audio": (clips, chunks, config.audio_columns, config.mels),
        "video_present": (clips, chunks),
        "audio_present": (clips, chunks),
    }
    _check_shapes(batch, expected)
    if chunks < 1:
        raise ValueError("a clip of 0 chunks, expected at least 1")
    present = {"video_present": torch.bool, "audio_present": torch.bool}
    for name, dtype in {"video": torch.uint8, "audio": like.dtype, **present}.items():
        check_kind(name, getattr(batch, name), dtype, like.device)


def check_texts(batch: Batch, device: torch.device) -> None:
    """Raise ``ValueError``, with what was given and what is expected, unless the texts belong to the clips."""
    if batch.tokens.dim() != 3:
        raise ValueError(f"tokens has shape {tuple(batch.tokens.shape)}, expected [B, Q, L]")
    clips, texts, length = batch.video.shape[0], *batch.tokens.shape[1:]
    shape = (clips, texts, length)
    _check_shapes(batch, {"tokens": shape, "answer_mask": shape, "text_weight": shape[:2]})
    check_kind("tokens", batch.tokens, torch.int64, device)
    check_kind("answer_mask", batch.answer_mask, torch.bool, device)


def check_waveform(batch: Batch) -> None:
    """Raise ``ValueError``, with what was given and what is expected, unless a waveform belongs to the clips."""
    sound = batch.waveform
    assert sound is not None
    if sound.chunks.dim() != 4:
        raise ValueError(f"waveform.chunks has shape {tuple(sound.chunks.shape)}, expected [B, n, T, W]")
    clips, chunks = batch.audio_present.shape
    count, width = sound.chunks.shape[1], sound.chunks.shape[3]
    expected = {
        "chunks": (clips, count, chunks, width),
        "samples": (clips, count, chunks),
        "masks": (clips, count, 4),
        "shares": (clips, count),
    }
    for name, shape in expected.items():
        if tuple(getattr(sound, name).shape) != shape:
            raise ValueError(f"waveform.{name} has shape {tuple(getattr(sound, name).shape)}, expected {shape}")
    check_kind("waveform.chunks", sound.chunks, torch.int16, batch.audio_present.device)


def check_kind(name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ``ValueError``, with what was given and what is expected, unless a tensor has this type and device."""
    if tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype}, expected {dtype}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, the model on {device}: move the batch there")


def _check_shapes(batch: Batch, expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if tuple(getattr(batch, name).shape) != shape:
            raise ValueError(f"{name} has shape {tuple(getattr(batch, name).shape)}, expected {shape}")


def parameter_groups(model: Mirasol) -> dict[str, list[str]]:
    """The names of all parameters by the part that a phase freezes or trains (S 4); every name once.

    A part without parameters, as `concat` and `none` are, has an empty list.
    """
    parts = {"video_tubes": "tubes", "audio_reconstruction": "reconstruction"}
    groups: dict[str, list[str]] = {
        parts.get(part, part): [] for part, _ in model.named_children() if part not in ("text", "overlap", "log_mel")
    }
    for name, _ in model.named_parameters():
        part = name.split(".", 1)[0]
        if part == "text":
            crossing = ".cross_attention." in name or name.endswith("memory_features")
            part = "cross_attention" if crossing else "text_backbone"
        groups.setdefault(parts.get(part, part), []).append(name)
    return groups
