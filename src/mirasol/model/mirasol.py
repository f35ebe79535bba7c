"""Mirasol3B: one autoregressive model for time-aligned video and audio, one for text (P 3, figure 3)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from mirasol.model.audio import Audio
from mirasol.model.batch import Batch, Encoded, TextTargets, text_targets
from mirasol.model.checks import check_clips, check_kind, check_texts, check_waveform
from mirasol.model.combiners.build import build_combiner
from mirasol.model.config import ModelConfig
from mirasol.model.generation import Decoding, Questions, search
from mirasol.model.latent import build_latent
from mirasol.model.layers import initialise
from mirasol.model.logmel import LogMel
from mirasol.model.losses import LOSSES, Objective, cosine_loss, latent_statistics, loss_counts, text_loss
from mirasol.model.overlap import Overlap
from mirasol.model.reconstruction import AudioReconstruction, VideoReconstruction
from mirasol.model.text import Past, TextDecoder
from mirasol.model.tubes import VideoTubes
from mirasol.model.vit import ViT
from mirasol.model.yuv import downsample

ALL = Objective()


class Mirasol(nn.Module):
    """The whole model. Its parts are the paper's: see docs/architecture.md."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.overlap = Overlap(config)
        self.video_tubes = VideoTubes(config)
        self.audio = Audio(config)
        self.vit = ViT(config.vit, config.dropout)
        self.combiner = build_combiner(config, self.video_tubes.token_positions, self.audio.tokens)
        self.latent = build_latent(config)
        self.reconstruction = VideoReconstruction(config)
        self.text = TextDecoder(config)
        self.audio_reconstruction = AudioReconstruction(config) if config.audio_reconstruction else None
        self.log_mel: LogMel | None = None  # set for batches of waveforms; it has no weights
        initialise(self)

    def forward(self, batch: Batch, objective: Objective = ALL, totals: Tensor | None = None) -> dict[str, Tensor]:
        """The losses of a batch (P 3.5), unweighted, and statistics of the latent.

        Args:
            batch: clips with their texts.
            objective: losses of weight 0 are left out.
            totals: float64 [4], :func:`mirasol.model.losses.loss_counts` of all the parts of a step of which the batch
                is one: the losses of the parts then add up to those of the whole. ``None``: of this batch.

        Returns:
            ``text``, ``latent``, ``video``, and ``audio`` where the model reconstructs it: scalars;
            ``text_each`` [B, Q]; and :func:`mirasol.model.losses.latent_statistics`.

        Raises:
            ValueError: a tensor of the batch does not fit the model, or no token is to be predicted.
        """
        device = self.text.embedding.weight.device
        check_texts(batch, device)
        batch = self.to_log_mel(batch)
        encoded = self.encode(batch)
        totals = loss_counts(batch) if totals is None else totals
        shares = dict(zip(LOSSES, (1.0 / totals.clamp(min=1e-8)).unbind(), strict=True))
        sums: dict[str, Tensor] = {}
        found = dict(latent_statistics(encoded.x))
        if objective.text and batch.tokens.shape[1]:
            sums["text"], found["text_each"] = self._text_loss(batch, encoded, objective.label_smoothing)
        elif objective.text:  # no text: nothing of the text model runs
            sums["text"], found["text_each"] = encoded.x.new_zeros(()), batch.text_weight
        if objective.latent:
            sums["latent"] = self._latent_loss(encoded, objective.latent_target_gradient)
        if objective.video and batch.has_video:
            sums["video"] = self._video_loss(batch, encoded)
        if objective.audio and batch.has_audio and self.audio_reconstruction is not None:
            sums["audio"] = self._audio_loss(self.audio_reconstruction, batch, encoded)
        return {**{name: value * shares[name].to(value.dtype) for name, value in sums.items()}, **found}

    def encode(self, batch: Batch) -> Encoded:
        """Video and audio to latents, figure 3 from bottom to top.

        Raises:
            ValueError: a tensor of the batch does not fit the model.
        """
        batch = self.to_log_mel(batch)
        check_clips(batch, self.config, self.audio.project.weight)
        v = self.video_features(batch)  # [B, T, f, d] (P 3.1)
        a = self.audio_features(batch)  # [B, T, s, d]
        return self.join(v, a, batch)

    def video_features(self, batch: Batch) -> Tensor:
        """v_t, [B, T, f, d] (P 3.1); they do not depend on the sound. Zero without any picture."""
        if not batch.has_video:
            return self._absent(batch, self.video_tubes.tokens)
        v: Tensor = self.vit(self.video_tubes(self.overlap.video(batch.video, batch.video_present)))
        return v

    def audio_features(self, batch: Batch) -> Tensor:
        """a_t, [B, T, s, d] (P 3.1); they do not depend on the picture. Zero without any sound."""
        if not batch.has_audio:
            return self._absent(batch, self.audio.tokens)
        a: Tensor = self.vit(self.audio(self.overlap.audio(batch.audio, batch.audio_present)))
        return a

    def _absent(self, batch: Batch, tokens: int) -> Tensor:
        """Features of a modality that no clip has: the combiner masks them whatever they are."""
        return self.video_tubes.positions.new_zeros(*batch.video_present.shape, tokens, self.config.vit.width)

    def join(self, v: Tensor, a: Tensor, batch: Batch) -> Encoded:
        """Features of both modalities to latents; of ``batch`` only the presence is read, and in training the mask."""
        u = torch.cat([v, a], dim=2)  # u_t = (v_t, a_t), [B, T, n, d]
        x, _ = self.combiner(u, self._valid(batch))  # x_t = Combiner(u_1, ..., u_t) (eq. 2)
        hidden = batch.masked if self.training and self.latent.predicts else None
        h, _ = self.latent(x if hidden is None else x * ~hidden[..., None])  # p(h_t | x_t) (P 3.3)
        return Encoded(x, h, batch.video_present | batch.audio_present)

    def to_log_mel(self, batch: Batch) -> Batch:
        """The batch with log-mel in place of a waveform (docs/decisions/0038); a batch without one is unchanged.

        Raises:
            ValueError: the model has no ``log_mel``, or the waveform does not fit the batch.
        """
        if batch.waveform is None:
            return batch
        if self.log_mel is None:
            raise ValueError("a batch of waveforms, and a model without `log_mel`: set it, or feed log-mel")
        check_waveform(batch)
        like = self.audio.project.weight
        with torch.no_grad(), torch.autocast(like.device.type, enabled=False):  # decibels need all 24 bits
            audio = self.log_mel.of_waveform(batch.waveform, batch.audio_present)
        return dataclasses.replace(batch, audio=audio.to(like.dtype), waveform=None)

    def logits(self, tokens: Tensor, h: Tensor, h_present: Tensor) -> Tensor:
        """p(w_l | w_<l, h) (eq. 9): tokens int64 [B, Q, L], h [B, T, m, d], h_present bool [B, T] -> [B, Q, L, V]."""
        return self.text.head(self.text(tokens, self.text.memory_of(h, h_present))[0])

    def generate(self, h: Tensor, h_present: Tensor, prompts: Tensor, lengths: Tensor, max_new: int) -> Tensor:
        """Greedy answers int64 [B, Q, max_new] to prompts [B, Q, P]: see :func:`mirasol.model.generation.search`."""
        return search(self.text, Questions(h, h_present, prompts, lengths), Decoding(max_new)).tokens

    def _valid(self, batch: Batch) -> Tensor | None:
        """Which of the n features of each chunk exist, bool [B, T, n]; ``None`` for all."""
        complete = batch.complete
        if complete is None:
            complete = bool(batch.video_present.all()) and bool(batch.audio_present.all())
        if complete:
            return None
        return join_presence(batch.video_present, batch.audio_present, self.video_tubes.tokens, self.audio.tokens)

    def answers(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, TextTargets]:
        """Logits [N, V] of the tokens that the texts predict, and these tokens.

        Raises:
            ValueError: no token is to be predicted, or a text is longer than the text cache.
        """
        targets = batch.targets or text_targets(batch.tokens, batch.answer_mask)
        check_kind("targets", targets.tokens, torch.int64, batch.tokens.device)
        if not targets.tokens.numel():
            marked = batch.answer_mask[:, :, 1:].numel()
            raise ValueError(f"answer_mask marks 0 of {marked} tokens behind the first, expected at least 1")
        length = batch.tokens.shape[2]
        if length - 1 > self.text.max_text:
            raise ValueError(f"texts of {length - 1} tokens, the text cache holds {self.text.max_text}")
        owners, order = targets.owners, torch.arange(targets.owners.shape[1], device=targets.owners.device)
        seen = (owners[:, :, None] == owners[:, None]) & (order[:, None] >= order)
        past = Past([], (targets.packed % length)[:, None], seen)
        tokens = batch.tokens.flatten(1).gather(1, targets.packed)
        memory = self.text.memory_of(encoded.h, encoded.present)
        hidden, _ = self.text(tokens[:, None], memory, past, picked=targets.positions)
        return self.text.head(hidden.flatten(0, 1)[targets.rows]), targets

    def _text_loss(self, batch: Batch, encoded: Encoded, label_smoothing: float) -> tuple[Tensor, Tensor]:
        logits, targets = self.answers(batch, encoded)
        return text_loss(logits, targets.tokens, targets.texts, batch.text_weight, label_smoothing)

    def _latent_loss(self, encoded: Encoded, target_gradient: bool) -> Tensor:
        # h_t is to be x_{t+1}: if that had a gradient, the combiner could make it easy to predict
        if not self.latent.predicts:  # h is x itself: trained towards x_{t+1} it could only become constant
            return encoded.x.new_zeros(())
        pair = encoded.present[:, :-1] & encoded.present[:, 1:]
        target = encoded.x[:, 1:] if target_gradient else encoded.x[:, 1:].detach()
        return cosine_loss(encoded.h[:, :-1], target, pair)

    def _video_loss(self, batch: Batch, encoded: Encoded) -> Tensor:
        pair = encoded.present[:, :-1] & batch.video_present[:, 1:]
        small = downsample(batch.video[:, 1:], self.config.reconstruction_size, encoded.h.dtype)
        predicted = self.reconstruction(encoded.h[:, :-1].flatten(0, 1))
        return cosine_loss(predicted, self.reconstruction.target(small).flatten(0, 1), pair.flatten())

    def _audio_loss(self, reconstruction: AudioReconstruction, batch: Batch, encoded: Encoded) -> Tensor:
        pair = encoded.present[:, :-1] & batch.audio_present[:, 1:]
        predicted = reconstruction(encoded.h[:, :-1].flatten(0, 1))
        target = reconstruction.target(batch.audio[:, 1:].flatten(0, 1))
        return cosine_loss(predicted, target, pair.flatten())


def join_presence(video: Tensor, audio: Tensor, video_tokens: int, audio_tokens: int) -> Tensor:
    """Presence of the two modalities, bool [...], as presence of the features of a chunk, bool [..., n]."""
    v = video[..., None].expand(*video.shape, video_tokens)
    a = audio[..., None].expand(*audio.shape, audio_tokens)
    return torch.cat([v, a], dim=-1)
