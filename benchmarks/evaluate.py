"""Answering and scoring questions in batches with shared keys and values, against plain loops of full forwards.

    mirasol bench evaluate [--json FILE] [--rounds 5] [--quick] [--run]

A model of the demo's sizes with weights from a seed gets a batch of 32 clips of noise with ten questions each. With
its weights about half of the answers end at once and a third never. With ``--run`` the finetuned model of
this project's last run gets the first clips of its test split instead, with answers of two or three tokens. One
thread.

`evaluation_speed`: all questions under four conditions of `mirasol evaluate` (unchanged, muted, blanked, swapped;
shuffled chunks share no work). The plain loop encodes one clip at a time (once for each condition, not for each
question) and runs the text decoder over the whole text again for each new token of each question, one question at a
time, until the text has ended. Ours is `conditions`, which encodes again only the changed part, and `search` over
the batch. The answers must be the same, token by token, or this is an error. Also printed: the same for the
unchanged clips alone; the loop that has batches but no cache (all questions of all clips at once, until the last has
ended); and the text decoder's part, given the latents.
`closed_set_speed`: answers scored per second. The plain loop runs the decoder over prompt and answer for each
answer, one at a time, and for some of the questions, since it takes long; ours is `score` over the batch. A third
way is one forward per question with all its answers as a batch. All three get the latents. The scores must
agree to 1e-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from common import arguments, in_turn, median_ms, ratio, report, rounded, spread, table
from inputs import demo_config, random_batch
from torch import Tensor

from mirasol.data.conditions import Condition
from mirasol.data.loading.augment import under
from mirasol.evaluation.generate import CLIPS, conditions, prompts_of
from mirasol.model.batch import Batch, Encoded
from mirasol.model.closed_set import score
from mirasol.model.generation import EOS, PAD, Decoding, Questions, search
from mirasol.model.mirasol import Mirasol

CHUNKS, LONGEST, BEAM = 4, 8, 4
Case = tuple[Mirasol, Batch, Batch, Tensor, Tensor]  # clips, with other sounds, prompts [B, Q, P], lengths [B, Q]
Row = tuple[object, ...]


def made_questions(clips: int, texts: int) -> Case:
    """The demo preset, and noise with prompts of 6 to 15 tokens, as the built-in world's are.

    The weights are larger than at the start, so that answers differ, those of the end most of all.
    """
    config = demo_config()
    torch.manual_seed(0)
    model = Mirasol(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        model.text.embedding.weight[EOS] *= 3
    batch = random_batch(model.config, clips, CHUNKS, texts, 15)
    lengths = torch.randint(6, 16, (clips, texts), generator=torch.Generator().manual_seed(1))
    swapped = dataclasses.replace(batch, audio=batch.audio.roll(1, dims=0))
    return model, batch, swapped, batch.tokens.masked_fill(torch.arange(15) >= lengths[..., None], PAD), lengths


def recorded_questions(clips: int) -> Case:
    """The finetuned model and the first clips of the test split, with all their questions."""
    from mirasol.data.conditions import Condition
    from mirasol.data.loading.dataset import ShardDataset
    from mirasol.data.loading.loader import eval_loader
    from mirasol.pipeline.paths import FINETUNE, SHARDS, TOKENIZER
    from mirasol.tokenizer import Tokenizer
    from mirasol.training.weights import load_model

    shards, words = ShardDataset(SHARDS, "test"), Tokenizer.load(TOKENIZER)
    batch, swapped = (
        next(iter(eval_loader(shards, words, tasks=("qa",), batch_size=clips, condition=condition)))
        for condition in (Condition.unchanged, Condition.swapped)
    )
    return load_model(FINETUNE).eval(), batch, swapped, *prompts_of(batch)


def made_answers(count: int) -> list[list[int]]:
    """Different answers of one to four tokens and the end, some with a common beginning."""
    draws = torch.Generator().manual_seed(2)
    found: set[tuple[int, ...]] = set()
    while len(found) < count:
        length = int(torch.randint(1, 5, (), generator=draws))
        found.add((*torch.randint(5, 64, (length,), generator=draws).tolist(), EOS))
    return [list(answer) for answer in sorted(found)]


def one(encoded: Encoded, clip: int) -> tuple[Tensor, Tensor]:
    """The latents of one clip and their presence."""
    return encoded.h[clip : clip + 1], encoded.present[clip : clip + 1]


@torch.inference_mode()
def encoded_alone(model: Mirasol, batch: Batch) -> list[Encoded]:
    """One clip at a time."""
    return [
        model.encode(dataclasses.replace(batch, **{name: getattr(batch, name)[b : b + 1] for name in CLIPS}))
        for b in range(len(batch.video))
    ]


@torch.inference_mode()
def plain_texts(model: Mirasol, encoded: list[Encoded], prompts: Tensor, lengths: Tensor) -> Tensor:
    """One question, one token at a time, and the whole text again for each."""
    answers = torch.full((*lengths.shape, LONGEST), PAD)
    for b, clip in enumerate(encoded):
        for q, length in enumerate(lengths[b].tolist()):
            text = prompts[b, q, :length]
            for i in range(LONGEST):
                token = model.logits(text[None, None], clip.h, clip.present)[0, 0, -1].argmax()
                text = torch.cat([text, token[None]])
                answers[b, q, i] = token
                if token == EOS:
                    break
    return answers


def plain_answers(model: Mirasol, batches: list[Batch], prompts: Tensor, lengths: Tensor) -> Tensor:
    """The questions to each of ``batches`` by the plain loop."""
    return torch.stack([plain_texts(model, encoded_alone(model, batch), prompts, lengths) for batch in batches])


@torch.inference_mode()
def uncached_answers(model: Mirasol, batch: Batch, prompts: Tensor, lengths: Tensor) -> Tensor:
    """All questions at once, and the whole texts again for each token, until the last has ended."""
    encoded = model.encode(batch)
    answers = torch.full((*lengths.shape, LONGEST), PAD)
    texts = torch.nn.functional.pad(prompts, (0, LONGEST), value=PAD)
    ended = torch.zeros_like(lengths, dtype=torch.bool)
    for i in range(LONGEST):
        logits = model.logits(texts[:, :, : prompts.shape[-1] + i], encoded.h, encoded.present)
        last = (lengths + i - 1)[..., None, None].expand(-1, -1, 1, logits.shape[-1])
        token = logits.gather(2, last)[:, :, 0].argmax(dim=-1).masked_fill(ended, PAD)
        answers[..., i] = token
        texts.scatter_(2, (lengths + i)[..., None], token[..., None])
        ended |= token == EOS
        if ended.all():
            break
    return answers


def our_texts(model: Mirasol, encoded: Encoded, prompts: Tensor, lengths: Tensor, beam: int = 1) -> Tensor:
    """The text part of `answer`, given the encoded clips."""
    return search(model.text, Questions(encoded.h, encoded.present, prompts, lengths), Decoding(LONGEST, beam)).tokens


@torch.inference_mode()
def our_answers(model: Mirasol, batch: Batch, prompts: Tensor, lengths: Tensor, beam: int = 1) -> Tensor:
    """The work of `answer` on a batch."""
    return our_texts(model, model.encode(batch), prompts, lengths, beam)


@torch.inference_mode()
def evaluated(model: Mirasol, batch: Batch, swapped: Batch, prompts: Tensor, lengths: Tensor) -> Tensor:
    """The work of `mirasol evaluate` on a batch under the first four conditions."""
    four = islice(conditions(model, batch, swapped), 4)
    return torch.stack([our_texts(model, e, prompts, lengths) for _, e in four])


@torch.inference_mode()
def plain_scores(
    model: Mirasol, encoded: Encoded, prompts: Tensor, lengths: Tensor, answers: list[list[int]], at_once: bool
) -> Tensor:
    """[B, N] of each clip's first question: a full forward for each answer, or with ``at_once`` for all of them."""
    scores = []
    for b, length in enumerate(lengths[:, 0].tolist()):
        groups = [answers] if at_once else [[answer] for answer in answers]
        found: list[float] = []
        for group in groups:
            longest = max(map(len, group))
            behind = torch.tensor([answer + [PAD] * (longest - len(answer)) for answer in group])
            texts = torch.cat([prompts[b, 0, :length].expand(len(group), -1), behind], dim=1)
            logits = model.logits(texts[None, :, :-1], *one(encoded, b))[0, :, length - 1 :].log_softmax(dim=-1)
            gains = logits.gather(2, behind[..., None])[..., 0]
            found += gains.masked_fill(behind == PAD, 0).sum(dim=1).tolist()
        scores.append(found)
    return torch.tensor(scores)


@torch.inference_mode()
def our_scores(model: Mirasol, encoded: Encoded, prompts: Tensor, lengths: Tensor, answers: list[list[int]]) -> Tensor:
    """The work of `score_answers` on a batch."""
    return score(model.text, Questions(encoded.h, encoded.present, prompts, lengths), [answers])


def same(what: str, found: Tensor, expected: Tensor, tolerance: float = 0.0) -> None:
    """End the benchmark where two things that must be the same are not."""
    worst = float((found.double() - expected.double()).abs().max())
    if worst > tolerance:
        raise SystemExit(f"{what} differ by up to {worst:g}, expected at most {tolerance:g}: the times mean nothing")


def measure_answers(questions: Case, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The claim about generation, and the table behind it."""
    model, batch, swapped, prompts, lengths = questions
    others = [under(Condition.muted, batch), under(Condition.blanked, batch), swapped]
    alone = encoded_alone(model, batch)
    with torch.inference_mode():
        together = model.encode(batch)
    works: dict[str, Callable[[], Tensor]] = {
        "plain": partial(plain_answers, model, [batch], prompts, lengths),
        "plain, others": partial(plain_answers, model, others, prompts, lengths),
        "no cache": partial(uncached_answers, model, batch, prompts, lengths),
        "ours": partial(our_answers, model, batch, prompts, lengths),
        "ours, four conditions": partial(evaluated, *questions),
        "beam": partial(our_answers, model, batch, prompts, lengths, BEAM),
        "plain, texts": partial(plain_texts, model, alone, prompts, lengths),
        "ours, texts": partial(our_texts, model, together, prompts, lengths),
    }
    answers = {name: work() for name, work in works.items()}
    every = torch.cat([answers["plain"], answers["plain, others"]])
    same("answers of the plain loop and ours", every, answers["ours, four conditions"])
    for name in ("no cache", "ours", "plain, texts", "ours, texts"):
        same(f"answers of '{name}' and the plain loop", answers[name], answers["plain"][0])
    taken = in_turn({**works}, rounds)
    parts = zip(taken["plain"], taken["plain, others"], strict=True)
    taken["plain, four conditions"] = [full + rest for full, rest in parts]
    counts = torch.bincount((every != PAD).sum(dim=-1).flatten(), minlength=LONGEST + 1)[1:].tolist()
    rows: list[Row] = [(f"{lengths.numel()} questions, greedy, one thread, ms", "plain", "ours", "plain / ours")]
    ratios = {}
    for about, plain, ours in (
        ("four conditions", "plain, four conditions", "ours, four conditions"),
        ("untouched clips alone", "plain", "ours"),
        ("the text decoder's part of that", "plain, texts", "ours, texts"),
        ("all questions at once, but no cache", "no cache", "ours"),
        (f"a beam of {BEAM} / greedy", "beam", "ours"),
    ):
        ratios[about] = ratio(taken[plain], taken[ours])
        rows.append((about, median_ms(taken[plain]), median_ms(taken[ours]), spread(ratios[about])))
    table(rows)
    print(f"answers of 1 to {LONGEST} tokens: {counts}\n")
    milliseconds = {name: median_ms(seconds) for name, seconds in taken.items()}
    figures = {"answer_lengths": counts, "milliseconds": milliseconds, "ratios": ratios}
    return {"evaluation_speed": ratios["four conditions"]}, figures


def measure_scores(questions: Case, rounds: int, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The claim about closed sets, and the table behind it."""
    model, batch, _, prompts, lengths = questions
    answers = made_answers(12 if quick else 309)  # VGG-Sound has 309
    some = 1 if quick else 2  # clips of which the plain loop scores the first question
    with torch.inference_mode():
        encoded = model.encode(batch)
    few = (model, encoded, prompts[:some], lengths[:some], answers)
    works: dict[str, Callable[[], Tensor]] = {
        "plain": partial(plain_scores, *few, at_once=False),
        "at once": partial(plain_scores, *few, at_once=True),
        "ours": partial(our_scores, model, encoded, prompts, lengths, answers),
    }
    ours = works["ours"]()[:some, 0]
    for name in ("plain", "at once"):
        same(f"scores of '{name}' and ours", works[name](), ours, 1e-4)
    taken = in_turn({**works}, rounds)
    scored = {name: len(answers) * (lengths.numel() if name == "ours" else some) for name in taken}
    each = {name: [seconds / scored[name] for seconds in taken[name]] for name in taken}
    rows: list[Row] = [(f"{len(answers)} answers to a question, one thread", "answers a second", "over ours")]
    for name, about in (
        ("plain", "one answer at a time, full forwards"),
        ("at once", "a question's answers at once, full forwards"),
        ("ours", "ours"),
    ):
        rows.append((about, round(1e3 / median_ms(each[name])), spread(ratio(each[name], each["ours"]))))
    table(rows)
    figures = {
        "answers": len(answers),
        "answers_per_second": {name: rounded(1e3 / median_ms(seconds)) for name, seconds in each.items()},
        "over_ours": {"at once": ratio(each["at once"], each["ours"])},
    }
    return {"closed_set_speed": ratio(each["plain"], each["ours"])}, figures


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--run", action="store_true", help="the model and the clips of this project's last run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips, texts = (4, 3) if options.quick else (32, 10)
    questions = recorded_questions(clips) if options.run else made_questions(clips, texts)
    ratios, generation = measure_answers(questions, options.rounds)
    more, closed = measure_scores(questions, options.rounds, options.quick)
    report("evaluate", options.json, {**ratios, **more}, {"generation": generation, "closed_set": closed})


if __name__ == "__main__":
    main()
