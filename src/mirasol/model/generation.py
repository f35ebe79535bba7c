"""Answers by greedy decoding with a cache of the text so far."""

from __future__ import annotations

import torch
from torch import Tensor

from mirasol.model.text import TextDecoder

PAD, EOS = 0, 3  # the tokenizer's; a text ends with EOS and is padded behind it


@torch.no_grad()
def greedy(text: TextDecoder, h: Tensor, h_present: Tensor, prompts: Tensor, lengths: Tensor, max_new: int) -> Tensor:
    """The most likely token, again and again, until every text has ended.

    Args:
        text: the decoder.
        h: [B, T, m, d].
        h_present: bool [B, T].
        prompts: int64 [B, Q, P], padded on the right.
        lengths: int64 [B, Q], tokens of each prompt, 1 to P.
        max_new: longest answer in tokens, its end included.

    Returns:
        int64 [B, Q, max_new], padded with ``PAD`` behind the end.

    Raises:
        ValueError: a length is out of range, or prompt and answer do not fit the text cache.
    """
    clips, texts, width = prompts.shape
    if width + max_new > text.max_text:
        raise ValueError(
            f"prompts of {width} tokens with answers of {max_new} are longer than the text cache of {text.max_text}"
        )
    if int(lengths.min()) < 1 or int(lengths.max()) > width:
        raise ValueError(f"prompt lengths {int(lengths.min())} to {int(lengths.max())}, expected 1 to {width}")
    memory, valid = text.memory_of(h, h_present)
    hidden, pairs = text.prefill(prompts, memory, valid)
    keys_values, valid = text.cross_keys_values(memory, valid)
    state = text.init_state(clips * texts, memory.device, memory.dtype, width + max_new)
    # The padding's keys are in the cache too, but behind the length: the next tokens overwrite them.
    for layer, (keys, values) in enumerate(pairs):
        state["cache"][:, layer, 0, :width] = keys
        state["cache"][:, layer, 1, :width] = values
    state["length"] = lengths.flatten().clone()
    last = hidden.gather(2, (lengths - 1)[..., None, None].expand(-1, -1, 1, hidden.shape[-1]))[:, :, 0]

    answers = prompts.new_full((clips, texts, max_new), PAD)
    ended = torch.zeros_like(lengths, dtype=torch.bool)
    for i in range(max_new):
        token = text.head(last).argmax(dim=-1).masked_fill(ended, PAD)
        answers[:, :, i] = token
        ended |= token == EOS
        if i + 1 == max_new or bool(ended.all()):
            break
        last, state = text.cached_step(token, state, keys_values, valid)
    return answers
