"""The model one chunk and one token at a time. A state is a flat mapping of tensors of fixed shape, batch first.

Each step equals the whole-clip forward pass: a layer sees the last R = ``max_chunks`` chunks in both. No control flow
depends on data, so that each step can be exported as a graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.checks import check_kind, check_shape
from mirasol.model.chunk_transformer import StreamState
from mirasol.model.mirasol import Mirasol, join_presence
from mirasol.model.text import Past


def reset(state: StreamState, mask: Tensor) -> StreamState:
    """The state with the rows of ``mask`` (bool [B]) as before the first step; the others are unchanged.

    Raises:
        ValueError: ``mask`` is not bool [B].
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
        """The states of combiner and overlap before the first chunk, all zeros."""
        return {**self.combiner.init_state(batch, device, dtype), **self.overlap.init_state(batch, device, dtype)}

    def forward(
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
        c, batch, like = self.config, video.shape[0], self.audio.project.weight
        inputs = {
            "video": (video, (batch, c.frames_per_chunk, c.size * 3 // 2, c.size), torch.uint8),
            "audio": (audio, (batch, c.audio_columns, c.mels), like.dtype),
            "video_present": (video_present, (batch,), torch.bool),
            "audio_present": (audio_present, (batch,), torch.bool),
        }
        for name, (tensor, shape, _) in inputs.items():
            check_shape(name, tensor, shape)
        for name, (tensor, _, dtype) in inputs.items():
            check_kind(name, tensor, dtype, like.device)
        video, audio, video_present, audio_present = (x[:, None] for x, _, _ in inputs.values())  # a clip of one chunk
        ends = self.overlap.after(video, audio, video_present, audio_present)
        v = self.vit(self.video_tubes(self.overlap.video(video, video_present, state)))
        u = torch.cat([v, self.vit(self.audio(self.overlap.audio(audio, audio_present, state)))], dim=2)
        valid = join_presence(video_present, audio_present, self.video_tubes.tokens, self.audio.tokens)
        x, after = self.combiner(u, valid, state)
        return x.squeeze(1), {**after, **ends}


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

    def forward(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """x_t [B, m, d] -> h_t [B, m, d] and the next state.

        Raises:
            ValueError: the shape of ``x`` does not fit the model.
        """
        check_shape("x", x, (x.shape[0], self.config.num_queries, self.config.combiner_sizes.width))
        h, state = self.latent(x.unsqueeze(1), state)
        return h.squeeze(1), state


class Text(nn.Module):
    """A token -> the logits of the next (P 3.4); prompt and answer go in one by one."""

    def __init__(self, model: Mirasol) -> None:
        super().__init__()
        self.config = model.config
        self.text = model.text

    def init_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StreamState:
        """``cache`` [B, layers, 2, max_text, heads, head] and ``length`` int64 [B], all zeros."""
        sizes = self.config.text
        shape = (batch, sizes.layers, 2, self.config.max_text, sizes.heads, sizes.head)
        return {
            "cache": torch.zeros(shape, device=device, dtype=dtype),
            "length": torch.zeros(batch, device=device, dtype=torch.int64),
        }

    def forward(
        self, token: Tensor, memory: Tensor, memory_valid: Tensor, state: StreamState
    ) -> tuple[Tensor, StreamState]:
        """One token.

        Args:
            token: int64 [B].
            memory: the last R chunks of h, oldest first, [B, R*m, d].
            memory_valid: bool [B, R*m], False for a chunk that is missing or was empty.
            state: of the token before, or :meth:`init_state`. It holds at most ``max_text`` tokens.

        Returns:
            Logits [B, V] and the next state.

        Raises:
            ValueError: the shape of ``memory`` or ``memory_valid`` does not fit the model, or the cache is full
                (an exported graph cannot check that: its caller counts, and further tokens are forgotten at once).
        """
        slots = self.config.max_chunks * self.config.num_queries
        check_shape("memory", memory, (token.shape[0], slots, self.config.latent_sizes.width))
        check_shape("memory_valid", memory_valid, (token.shape[0], slots))
        check_kind("token", token, torch.int64, memory.device)
        cache, length = state["cache"], state["length"]
        if not torch.compiler.is_compiling() and (count := int(length.max())) >= self.config.max_text:
            raise ValueError(f"token {count + 1} of a text, the text cache holds {self.config.max_text}")
        slot = torch.arange(cache.shape[3], device=token.device)
        past = Past(
            keys_values=[(cache[:, layer, 0], cache[:, layer, 1]) for layer in range(cache.shape[1])],
            positions=length[:, None, None],
            seen=(slot <= length[:, None])[:, None],
            slot=slot == length[:, None],
        )
        hidden, pairs = self.text(token[:, None, None], self.text.read_memory(memory, memory_valid), past)
        stored = torch.stack([torch.stack(pair, dim=1) for pair in pairs], dim=1)
        return self.text.head(hidden[:, 0, 0]), {"cache": stored, "length": length + 1}
