"""Answers by beam search over the keys and values of the text so far; a beam of 1 is greedy decoding."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mirasol.model.text import Memory, Pair, Past, TextDecoder

PAD, EOS = 0, 3  # the tokenizer's; a text ends with EOS and is padded behind it
ALPHA = 0.6  # of the length penalty: Vaswani et al. 2017, section 6.1


class Questions(NamedTuple):
    """Q prompts about each of B clips."""

    h: Tensor  # [B, T, m, d], latents
    present: Tensor  # bool [B, T], chunks that hold something
    prompts: Tensor  # int64 [B, Q, P], padded on the right
    lengths: Tensor  # int64 [B, Q], tokens of each prompt, 1 to P


@dataclass(frozen=True)
class Decoding:
    """How answers are searched."""

    max_new: int  # longest answer in tokens, its end included; less if a prompt leaves less space in the text cache
    beam: int = 1  # hypotheses at a time
    alpha: float = ALPHA  # of the length penalty; 0 for none


@dataclass(frozen=True)
class Generated:
    """The answers of a search."""

    tokens: Tensor  # int64 [B, Q, max_new], padded with PAD after the end
    log_likelihood: Tensor  # float64 [B, Q], sum over the answer's tokens, its end included


@dataclass
class Prompted:
    """The decoder's state after the prompts."""

    memory: Memory  # of the B clips
    past: list[Pair]  # each layer's keys and values of the prompts, [B*Q, P, heads, head]
    seen: Tensor  # bool [B*Q, P], False for padding
    lengths: Tensor  # int64 [B, Q]
    last: Tensor  # [B, Q, w], hidden states of the last tokens


@torch.no_grad()
def read_prompts(text: TextDecoder, asked: Questions) -> Prompted:
    """One pass over all prompts; errors as of :func:`search`."""
    prompts, lengths, width = asked.prompts, asked.lengths, asked.prompts.shape[-1]
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1 or longest > width:
        raise ValueError(f"prompt lengths {shortest} to {longest}, expected 1 to {width}")
    if longest >= text.max_text:
        raise ValueError(f"a prompt of {longest} tokens fills the text cache of {text.max_text} tokens")
    memory = text.memory_of(asked.h, asked.present)
    ends = torch.arange(prompts.shape[1], device=prompts.device) * width + lengths - 1
    last, past = text(prompts, memory, picked=ends)
    seen = torch.arange(width, device=prompts.device) < lengths.view(-1, 1)
    return Prompted(memory, past, seen, lengths, last)


def length_penalty(tokens: Tensor, alpha: float) -> Tensor:
    """((5 + n) / 6)^alpha of answers of n tokens, their end included (Wu et al. 2016, eq. 14)."""
    return ((5.0 + tokens.double()) / 6.0) ** alpha


@torch.no_grad()
def search(text: TextDecoder, asked: Questions, decoding: Decoding, wanted: Tensor | None = None) -> Generated:
    """Each prompt's best answer by beam search.

    A hypothesis is worth its log-likelihood divided by :func:`length_penalty`. Ended hypotheses stay among the
    ``beam`` best until better ones replace them, so that a beam of 1 is greedy decoding and a beam as wide as
    all texts is exhaustive. Between equals the hypothesis that was ahead goes first, then the lowest token. A search
    is over when no open hypothesis can become better than an ended one, or at the length limit. It then leaves the
    batch.

    The hypotheses of a prompt share its keys and values. Their own are never moved: a mask marks which of them belong
    to which hypothesis.

    Args:
        text: the decoder.
        asked: the prompts.
        decoding: length limit and beam.
        wanted: bool [B, Q], prompts to answer, ``None`` for all; the answers of others are all ``PAD``.

    Raises:
        ValueError: a length is out of range, a prompt fills the text cache, or ``beam`` or ``max_new`` is less than 1.
    """
    max_new, beam = decoding.max_new, decoding.beam
    if beam < 1 or max_new < 1:
        raise ValueError(f"a beam of {beam} with answers of {max_new} tokens, expected at least 1 of both")
    read, device = read_prompts(text, asked), asked.prompts.device
    count, shape = asked.lengths.numel(), asked.lengths.shape
    answers = Generated(
        torch.full((count, max_new), PAD, device=device), torch.zeros(count, device=device, dtype=torch.float64)
    )
    beams = _Beams.start(read, decoding, text.max_text, wanted)
    hidden = read.last[:, :, None].expand(-1, -1, beam, -1)
    for i in range(max_new):
        beams.extend(text.head(hidden), i)
        beams.finish(answers, i)
        if not bool(beams.open.any()):
            break
        beams.pack()
        hidden = beams.feed(text, i)
    return Generated(answers.tokens.view(*shape, max_new), answers.log_likelihood.view(shape))


@dataclass
class _Beams:
    """K hypotheses for each of B x Q prompts; B and Q shrink as searches end."""

    read: Prompted
    alpha: float
    nodes: list[Pair]  # each layer's keys and values of prompts and of all tokens fed since, [B*Q, P+F, heads, head]
    rows: Tensor  # int64 [B, Q], the place of the answer
    open: Tensor  # bool [B, Q], searches that go on
    limit: Tensor  # int64 [B, Q], longest answer
    tokens: Tensor  # int64 [B, Q, K, max_new]
    count: Tensor  # int64 [B, Q, K], tokens of each hypothesis
    total: Tensor  # float64 [B, Q, K], log-likelihood; -inf for no hypothesis
    ended: Tensor  # bool [B, Q, K]
    past: Tensor  # bool [B, Q, K, F], which of the fed tokens belong to a hypothesis

    @classmethod
    def start(cls, read: Prompted, decoding: Decoding, max_text: int, wanted: Tensor | None) -> _Beams:
        """One empty hypothesis for each prompt."""
        shape, device = read.lengths.shape, read.lengths.device
        beams = (*shape, decoding.beam)
        total = torch.full(beams, -torch.inf, device=device, dtype=torch.float64)
        total[..., 0] = 0
        return cls(
            read=read,
            alpha=decoding.alpha,
            nodes=read.past,
            rows=torch.arange(read.lengths.numel(), device=device).view(shape),
            open=torch.ones(shape, device=device, dtype=torch.bool) if wanted is None else wanted,
            limit=(max_text - read.lengths).clamp(max=decoding.max_new),
            tokens=torch.full((*beams, decoding.max_new), PAD, device=device),
            count=torch.zeros(beams, device=device, dtype=torch.int64),
            total=total,
            ended=torch.zeros(beams, device=device, dtype=torch.bool),
            past=torch.zeros((*beams, 0), device=device, dtype=torch.bool),
        )

    def extend(self, logits: Tensor, i: int) -> None:
        """Keep the K best extensions of all hypotheses by token number ``i``; logits [B, Q, K, V]."""
        beam = self.total.shape[-1]
        tokens, gains = _best(logits, beam)  # [B, Q, K, K'] each
        ended = self.ended[..., None]
        first = torch.arange(tokens.shape[-1], device=tokens.device) == 0
        total = self.total[..., None] + gains.masked_fill(ended, -torch.inf).masked_fill(ended & first, 0.0)
        tokens = tokens.masked_fill(ended, PAD)
        count = (self.count + ~self.ended)[..., None].expand_as(total)
        worth = (total / length_penalty(count, self.alpha)).flatten(-2)
        order = _first(worth, beam)  # [B, Q, K]
        parent = order // tokens.shape[-1]
        self.total, self.count = (x.flatten(-2).gather(-1, order) for x in (total, count))
        chosen = tokens.flatten(-2).gather(-1, order)
        self.tokens = _rows(self.tokens, parent)
        self.tokens[..., i] = chosen
        self.ended = self.ended.gather(-1, parent) | (chosen == EOS)
        self.past = _rows(self.past, parent)

    def finish(self, answers: Generated, i: int) -> None:
        """Store the best hypothesis of each search that is over, now that all have token number ``i``."""
        worth = self.total / length_penalty(self.count, self.alpha)
        ended = worth.masked_fill(~self.ended, -torch.inf).amax(dim=-1)
        # log-likelihoods only fall: none can become worth more than this
        reachable = self.total / length_penalty(self.limit, self.alpha)[..., None]
        reachable = reachable.masked_fill(self.ended, -torch.inf).amax(dim=-1)
        over = self.open & ((ended > reachable) | (i + 1 >= self.limit))
        rows = self.rows[over]
        answers.tokens[rows] = self.tokens[over][:, 0]
        answers.log_likelihood[rows] = self.total[over][:, 0]
        self.open = self.open & ~over

    def pack(self) -> None:
        """Drop clips and texts without an open search, if they are a quarter or more of the batch."""
        counts = self.open.sum(dim=1)
        clips = counts.nonzero()[:, 0]
        most = int(counts.max())
        if 4 * len(clips) * most > 3 * self.open.numel():
            return
        texts = self.open.to(torch.int8).argsort(dim=1, descending=True, stable=True)[clips, :most]
        flat = (clips[:, None] * self.open.shape[1] + texts).flatten()
        memory = self.read.memory
        self.read = dataclasses.replace(
            self.read,
            memory=Memory(
                [pair and (pair[0][clips], pair[1][clips]) for pair in memory.keys_values], memory.valid[clips]
            ),
            seen=self.read.seen[flat],
            lengths=self.read.lengths[clips[:, None], texts],
        )
        self.nodes = [(keys[flat], values[flat]) for keys, values in self.nodes]
        for name in ("rows", "open", "limit", "tokens", "count", "total", "ended", "past"):
            setattr(self, name, getattr(self, name)[clips[:, None], texts])

    def feed(self, text: TextDecoder, i: int) -> Tensor:
        """Hidden states [B, Q, K, w] of token number ``i`` of every hypothesis."""
        clips, texts, beam = self.total.shape
        own = torch.eye(beam, device=self.past.device, dtype=torch.bool).expand(clips, texts, -1, -1)
        self.past = torch.cat([self.past, own], dim=-1)
        seen = torch.cat([self.read.seen[:, None].expand(-1, beam, -1), self.past.flatten(0, 1)], dim=-1)
        positions = (self.read.lengths[..., None] + i).expand(-1, -1, beam)
        hidden, self.nodes = text(self.tokens[..., i], self.read.memory, Past(self.nodes, positions, seen))
        return hidden


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """The hypotheses ``index`` [B, Q, K] of x [B, Q, K, n]."""
    return x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]))


def _first(worth: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest along the last axis, equal ones in their order."""
    if count == 1:
        return worth.argmax(dim=-1, keepdim=True)
    return worth.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def _best(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most likely tokens [..., count], equal ones by their number, and their log-likelihoods in float64.

    The logits themselves decide: a log-likelihood may lose a difference of one bit.
    """
    left, tokens = logits.clone() if count > 1 else logits, []
    for _ in range(min(count, logits.shape[-1])):
        tokens.append(left.argmax(dim=-1, keepdim=True))
        if len(tokens) < count:
            left.scatter_(-1, tokens[-1], -torch.inf)
    best = torch.cat(tokens, dim=-1)
    logits = wide(logits)
    return best, logits.gather(-1, best).double() - logits.logsumexp(dim=-1, keepdim=True).double()


def wide(logits: Tensor) -> Tensor:
    """Logits in fp32 at least: in half precision their sum of exponentials would be off."""
    return logits if logits.dtype == torch.float64 else logits.float()
