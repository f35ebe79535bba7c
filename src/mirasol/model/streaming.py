"""The model one chunk and one token at a time. A state is a flat mapping of tensors of fixed shape, batch first.

Each step equals the whole-clip forward pass as long as no more than R = ``max_chunks`` chunks have gone by; beyond
that a layer sees the last R chunks, as the whole-clip pass does. There is no data-dependent control flow, so that
each step can be exported as a graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import StreamState
from mirasol.model.mirasol import Mirasol, check_kind, join_presence

__all__ = ["EncoderCombiner", "Latent", "StreamState", "Text", "reset"]


def reset(state: StreamState, mask: Tensor) -> StreamState:
    """The state with the rows of ``mask`` (bool [B]) as before the first step; the others are untouched.

    Raises:
        ValueError: ``mask`` is no bool [B].
    """
    rows = {tensor.shape[0] for tensor in state.values()}
    if mask.dtype != torch.bool or mask.dim() != 1 or not rows <= {mask.shape[0]}:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}, expected torch.bool [B], B = {sorted(rows)}")
    return {
        name: torch.where(mask.view(-1, *[1] * (tensor.dim() - 1)), torch.zeros_like(tensor), tensor)
        for name, tensor in state.items()
    }


class EncoderCombiner(nn.Module):
    """A chunk of video and audio -> x_t: tubes, audio branch, shared ViT, combiner (P 3.1, 3.2)."""

    def __init__(self, model: Mirasol) -> None:
        super().__init__()
        self.config = model.config
        self.video_tubes, self.audio, self.vit = model.video_tubes, model.audio, model.vit
        self.overlap, self.combiner = model.overlap, model.combiner

    def init_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StreamState:
        """The combiner's state before the first chunk, and that of chunks that overlap, all zeros."""
        return {**self.combiner.init_state(batch, device, dtype), **self.overlap.init_state(batch, device, dtype)}

    def step(
        self, video: Tensor, audio: Tensor, video_present: Tensor, audio_present: Tensor, state: StreamState
    ) -> tuple[Tensor, StreamState]:
        """One chunk.

        Args:
            video: uint8 [B, K, H*3/2, W]. Any content where it is missing.
            audio: float [B, A, M]. Any finite content where it is missing.
            video_present: bool [B].
            audio_present: bool [B].
            state: of the chunk before, or :meth:`init_state`.

        Returns:
            x_t [B, m, d] and the next state.

        Raises:
            ValueError: a shape, a type or a device does not fit the model.
        """
        c, batch = self.config, video.shape[0]
        _check("video", video, (batch, c.frames_per_chunk, c.size * 3 // 2, c.size))
        _check("audio", audio, (batch, c.audio_columns, c.mels))
        _check("video_present", video_present, (batch,))
        _check("audio_present", audio_present, (batch,))
        like = self.audio.project.weight
        check_kind("video", video, torch.uint8, like.device)
        check_kind("audio", audio, like.dtype, like.device)
        check_kind("video_present", video_present, torch.bool, like.device)
        check_kind("audio_present", audio_present, torch.bool, like.device)
        video, audio, ends = self.overlap.step(video, audio, video_present, audio_present, state)
        v = self.vit(self.video_tubes(video[:, None]))[:, 0]
        a = self.vit(self.audio(audio[:, None]))[:, 0]
        valid = join_presence(video_present, audio_present, self.video_tubes.tokens, self.audio.tokens)
        x, after = self.combiner.step(torch.cat([v, a], dim=1), valid, state)
        return x, {**after, **ends}

    forward = step


class Latent(nn.Module):
    """x_t -> h_t (P 3.3)."""

    def __init__(self, model: Mirasol) -> None:
        super().__init__()
        self.config = model.config
        self.latent = model.latent

    def init_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StreamState:
        """The state before the first chunk, all zeros."""
        return self.latent.init_state(batch, device, dtype)

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """x_t [B, m, d] -> h_t [B, m, d] and the next state.

        Raises:
            ValueError: the shape of ``x`` does not fit the model.
        """
        _check("x", x, (x.shape[0], self.config.combined, self.config.combiner_sizes.width))
        return self.latent.step(x, state)

    forward = step


class Text(nn.Module):
    """A token -> the logits of the next (P 3.4); prompt and answer go in one by one."""

    def __init__(self, model: Mirasol) -> None:
        super().__init__()
        self.config = model.config
        self.text = model.text

    def init_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StreamState:
        """The state before the first token, all zeros."""
        return self.text.init_state(batch, device, dtype)

    def step(
        self, token: Tensor, state: StreamState, memory: Tensor, memory_valid: Tensor
    ) -> tuple[Tensor, StreamState]:
        """One token.

        Args:
            token: int64 [B].
            state: of the token before, or :meth:`init_state`. It has room for ``max_text`` tokens.
            memory: the last R chunks of h, oldest first, [B, R*m, d].
            memory_valid: bool [B, R*m], False where there is no chunk (yet) or one that held nothing.

        Returns:
            Logits [B, V] and the next state.

        Raises:
            ValueError: the shape of ``memory`` or ``memory_valid`` does not fit the model, or the cache is full
                (an exported graph cannot say so: its caller keeps count).
        """
        slots = self.config.max_chunks * self.config.combined
        _check("memory", memory, (token.shape[0], slots, self.config.latent_sizes.width))
        _check("memory_valid", memory_valid, (token.shape[0], slots))
        check_kind("token", token, torch.int64, memory.device)
        if not torch.compiler.is_compiling() and (count := int(state["length"].max())) >= self.config.max_text:
            raise ValueError(f"token {count + 1} of a text, the text cache holds {self.config.max_text}")
        return self.text.step(token, state, memory, memory_valid)

    forward = step


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
