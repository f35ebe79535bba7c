"""Exact log-likelihoods of given answers: prompts and shared beginnings of answers are read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirasol.model.generation import PAD, Prompted, Questions, read_prompts, wide
from mirasol.model.text import Pair, Past, TextDecoder

NODES = 64  # of one tree that go through the decoder together
TOKENS = 4096  # of all trees
LOGITS = 2**27  # numbers in their logits

PROMPT = -1  # as a parent

Sequences = Sequence[Sequence[int]]  # answers as tokens


class Trie:
    """Answers as a tree; its nodes are their different beginnings.

    Nodes are numbered in the order of a walk through the tree, so that the ancestors of a node come before it. A
    node with children is *inner*: the decoder has to read it; inner nodes are numbered separately too.
    """

    def __init__(self, answers: Sequences) -> None:
        """``answers`` hold at least one token each, and may repeat."""
        self.tokens: list[int] = []
        self.parents: list[int] = []  # number of the inner node before, -1 for the prompt
        inner: dict[int, int] = {}  # node -> its number among the inner ones
        self.inner_tokens: list[int] = []
        self.ancestors: list[list[int]] = []  # of each inner node: the inner ones from the prompt to it
        ends: dict[tuple[int, ...], list[int]] = {}
        path: list[int] = []
        before: tuple[int, ...] = ()
        for answer in sorted(set(map(tuple, answers))):
            shared = next((i for i, (a, b) in enumerate(zip(answer, before, strict=False)) if a != b), len(before))
            path = path[:shared]
            for token in answer[shared:]:
                if path and path[-1] not in inner:
                    inner[path[-1]] = len(inner)
                    self.inner_tokens.append(self.tokens[path[-1]])
                    self.ancestors.append([inner[node] for node in path[:-1]])
                self.parents.append(inner[path[-1]] if path else -1)
                path.append(len(self.tokens))
                self.tokens.append(token)
            ends[answer] = path
            before = answer
        self.paths = [ends[tuple(answer)] for answer in answers]  # the nodes of each answer


@dataclass(frozen=True)
class _Trees:
    """R padded tries: one for each prompt, or one for all. I inner nodes, E nodes, D depth."""

    inner: Tensor  # int64 [R, I], tokens
    ancestors: Tensor  # int64 [R, I, D], the inner nodes before by their depth, -1 for none
    parents: Tensor  # int64 [R, E], inner nodes, -1 for the prompt, -2 for padding
    tokens: Tensor  # int64 [R, E]
    paths: Tensor  # int64 [R, N, D+1], nodes of each answer, E for padding

    @classmethod
    def of(cls, tries: Sequence[Trie], device: torch.device) -> _Trees:
        depth = max(len(path) for trie in tries for path in trie.paths)
        nodes = max(len(trie.tokens) for trie in tries)
        ancestors = [_padded(trie.ancestors, depth - 1, -1) for trie in tries]
        paths = [_padded(trie.paths, depth, nodes) for trie in tries]
        count = max(len(trie.paths) for trie in tries)
        inner = max(len(trie.inner_tokens) for trie in tries)
        rows = {
            "inner": _padded([trie.inner_tokens for trie in tries], inner, PAD),
            "ancestors": [x + [[-1] * (depth - 1)] * (inner - len(x)) for x in ancestors],
            "parents": _padded([trie.parents for trie in tries], nodes, -2),
            "tokens": _padded([trie.tokens for trie in tries], nodes, PAD),
            "paths": [x + [[nodes] * depth] * (count - len(x)) for x in paths],
        }
        shapes = {"ancestors": (len(tries), inner, depth - 1)}
        made = {name: torch.tensor(x, dtype=torch.int64, device=device) for name, x in rows.items()}
        return cls(**{name: x.view(shapes.get(name, x.shape)) for name, x in made.items()})

    def part(self, rows: slice) -> _Trees:
        """The tries of some prompts."""
        return self if len(self.inner) == 1 else _Trees(**{name: x[rows] for name, x in vars(self).items()})


def _padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> list[list[int]]:
    return [[*row, *[filler] * (length - len(row))] for row in rows]


@torch.no_grad()
def score(text: TextDecoder, asked: Questions, answers: Sequence[Sequences]) -> Tensor:
    """log p(answer | prompt, h), the sum over the answer's tokens (P eq. 9).

    Nothing is added to an answer: include the end mark to score a whole text.

    The answers to a prompt are a tree. Runs of at most ``NODES`` of its nodes, and ``TOKENS`` of all trees, go through
    the decoder; besides the prompt's, a run needs only the keys and values on the path to its first node.
    So each node is computed once, and the keys and values held do not grow with the number of answers.

    Args:
        text: the decoder.
        asked: the prompts.
        answers: tokens of the answers to all prompts, as one entry; or to each of the B*Q, as B*Q entries.

    Returns:
        float64 [B, Q, N]; N is the largest number of answers, and NaN fills shorter rows.

    Raises:
        ValueError: a length is out of range, an answer is empty, the answers are for another number of prompts, or
            one does not fit the text cache behind its prompt.
    """
    clips, texts = asked.lengths.shape
    if len(answers) not in (1, clips * texts):
        raise ValueError(f"answers for {len(answers)} prompts, expected 1 for all or {clips * texts}")
    if empty := [i for i, given in enumerate(answers) if not given or not all(given)]:
        raise ValueError(f"no answers, or an empty one, for {len(empty)} prompts: the first is number {empty[0]}")
    device = asked.lengths.device
    answered = torch.tensor([max(map(len, given)) for given in answers], device=device)
    if (longest := int((asked.lengths.flatten() + answered).max())) > text.max_text:
        raise ValueError(f"prompts and answers of up to {longest} tokens, the text cache holds {text.max_text}")
    trees = _Trees.of([Trie(given) for given in answers], device)
    at_once = max(1, min(TOKENS, LOGITS // text.embedding.num_embeddings))
    size = max(1, min(NODES, at_once // texts, trees.inner.shape[1]))
    step = max(1, at_once // (texts * size))
    scores = []
    for low in range(0, clips, step):
        read = read_prompts(text, Questions(*(x[low : low + step] for x in asked)))
        scores.append(_score(text, read, trees.part(slice(low * texts, (low + step) * texts)), size))
    found = torch.cat(scores)
    given = (trees.paths[:, :, 0] < trees.tokens.shape[1]).expand(len(found), -1)
    return found.masked_fill(~given, torch.nan).view(clips, texts, -1)


def _score(text: TextDecoder, read: Prompted, trees: _Trees, size: int) -> Tensor:
    """Scores [S, N] of the answers to S prompts."""
    rows, depth = len(read.seen), trees.ancestors.shape[2]
    gains = read.last.new_zeros((rows, trees.tokens.shape[1] + 1), dtype=torch.float64)  # one more for padding
    _note(gains, text.head(read.last).flatten(0, 1)[:, None], trees, PROMPT)
    carried: list[Pair] = []
    for keys, _ in read.past:
        nothing = keys.new_zeros((rows, depth, *keys.shape[2:]))
        carried.append((nothing, nothing))
    for low in range(0, trees.inner.shape[1], size):
        hidden, pairs = _run(text, read, trees, carried, slice(low, low + size))
        _note(gains, text.head(hidden).flatten(0, 1), trees, low)
        if low + size < trees.inner.shape[1]:
            carried = _path(trees.ancestors[:, low + size], low, carried, pairs)
    scores = torch.zeros_like(gains[:, :1])
    for nodes in trees.paths.unbind(-1):
        scores = scores + gains.gather(1, nodes.expand(rows, -1))
    return scores


def _run(
    text: TextDecoder, read: Prompted, trees: _Trees, carried: list[Pair], run: slice
) -> tuple[Tensor, list[Pair]]:
    """Hidden states and keys and values of a run of inner nodes after prompts and ``carried`` nodes."""
    tokens, ancestors = trees.inner[:, run], trees.ancestors[:, run]  # [R, C], [R, C, D]
    count, rows = tokens.shape[1], len(read.seen)
    node = torch.arange(run.start, run.start + count, device=tokens.device)
    own = (ancestors[..., None] == node).any(dim=2) | torch.eye(count, device=tokens.device, dtype=torch.bool)
    before = (ancestors >= 0) & (ancestors < run.start)
    seen = torch.cat([before, own], dim=-1).expand(rows, -1, -1)
    seen = torch.cat([read.seen[:, None].expand(-1, count, -1), seen], dim=-1)  # [S, C, P+D+C]
    shape = *read.lengths.shape, count
    positions = (read.lengths.view(-1, 1) + (ancestors >= 0).sum(dim=-1)).view(shape)
    pairs = [
        (torch.cat([a, c], dim=1), torch.cat([b, d], dim=1)) for (a, b), (c, d) in zip(read.past, carried, strict=True)
    ]
    past = Past(pairs, positions, seen)
    hidden, pairs = text(tokens.expand(rows, -1).reshape(shape), read.memory, past)
    return hidden, [(keys[:, -count:], values[:, -count:]) for keys, values in pairs]


def _path(ancestors: Tensor, low: int, carried: list[Pair], pairs: list[Pair]) -> list[Pair]:
    """Keys and values of the nodes ``ancestors`` [R, D]: carried, or of the run that began at ``low``."""
    depth = torch.arange(ancestors.shape[1], device=ancestors.device)
    index = torch.where(ancestors < low, depth, len(depth) + ancestors - low)

    def taken(before: Tensor, own: Tensor) -> Tensor:
        return torch.cat([before, own], dim=1).take_along_dim(index[:, :, None, None], dim=1)

    return [(taken(a, c), taken(b, d)) for (a, b), (c, d) in zip(carried, pairs, strict=True)]


def _note(gains: Tensor, logits: Tensor, trees: _Trees, low: int) -> None:
    """Store the gains of the children of C inner nodes, from ``low`` on; logits [S, C, V]."""
    logits = wide(logits)
    rows, count, vocabulary = logits.shape
    parents = trees.parents - low
    here = (parents >= 0) & (parents < count)  # [R, E]
    nodes = here.any(dim=0).nonzero()[:, 0]
    here, place = here[:, nodes], parents[:, nodes].clamp(0, count - 1).expand(rows, -1)
    chosen = logits.flatten(1).gather(1, place * vocabulary + trees.tokens[:, nodes])
    gain = chosen.double() - logits.logsumexp(dim=-1).gather(1, place).double()
    gains[:, nodes] = torch.where(here, gain, gains[:, nodes])
