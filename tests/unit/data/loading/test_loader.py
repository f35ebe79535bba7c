"""The loader: order by seed and epoch alone, exact resume, contents of a batch, conditions of evaluation."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.loading import digest, in_turn, keys, loader_of
from support.media import TINY_CLIP
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.conditions import Condition
from mirasol.data.loading import augment
from mirasol.data.loading.augment import Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import eval_loader
from mirasol.media.log_mel import SILENCE
from mirasol.model.batch import Batch
from mirasol.model.losses import text_loss
from mirasol.tokenizer import EOS, Tokenizer

TRAIN = 8  # clips
ORDER = "01e0e9e238423e0638f7f8926cf89df1f71a3b71f34b53051b91ec6879206fa9"  # SHA-256 of 48 keys, seed 5


@pytest.fixture
def evaluation(tiny_shards: TinyShards, tokenizer: Tokenizer) -> Any:
    def make(condition: Condition = Condition.unchanged, split: str = "train", **changes: Any) -> list[Batch]:
        values = {"tasks": ("qa",), "batch_size": 3} | changes
        return list(eval_loader(ShardDataset(tiny_shards.folder, split), tokenizer, condition=condition, **values))

    return make


def test_a_batch_has_the_shapes_of_the_model(loader: Any) -> None:
    batch = next(iter(loader()))
    assert (batch.video.shape, batch.video.dtype) == ((3, 2, 2, 24, 16), torch.uint8)
    assert (batch.audio.shape, batch.audio.dtype) == ((3, 2, 8, 8), torch.float32)
    assert (batch.tokens.shape, batch.tokens.dtype) == ((3, 2, 40), torch.int64)
    assert batch.answer_mask.shape == (3, 2, 40) and batch.text_weight.shape == (3, 2)
    assert batch.video_present.shape == batch.audio_present.shape == (3, 2)


def test_the_mask_covers_the_answer_and_the_end_mark(loader: Any, tokenizer: Tokenizer) -> None:
    batch = next(iter(loader(texts_per_clip=3, caption_weight=0.0)))
    for tokens, mask in zip(batch.tokens.flatten(0, 1), batch.answer_mask.flatten(0, 1), strict=True):
        prompt, answer = tokenizer.decode(tokens[~mask]), tokenizer.decode(tokens[mask])
        assert prompt == f"Question {answer[-1]}?"
        assert answer == f"answer {answer[-1]}"
        assert tokens[mask][-1] == EOS


def test_every_epoch_has_every_clip_once_in_another_order(loader: Any) -> None:
    found = keys(loader(batch_size=4), 3 * TRAIN // 4)
    epochs = [found[i * TRAIN : (i + 1) * TRAIN] for i in range(3)]
    assert all(len(set(epoch)) == TRAIN for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_another_seed_has_another_order(loader: Any) -> None:
    assert keys(loader(seed=1), 4) != keys(loader(seed=2), 4)


@pytest.mark.parametrize("batches", [1, 4, 7])
def test_resuming_repeats_what_an_uninterrupted_run_had(loader: Any, batches: int) -> None:
    whole = itertools.islice(iter(loader(mute=0.3, blank=0.3)), batches, None)
    assert digest(whole, 6) == digest(loader(mute=0.3, blank=0.3, start=3 * batches), 6)


def test_workers_change_nothing(loader: Any) -> None:
    assert digest(loader(mute=0.3, blank=0.3, workers=2), 7) == digest(loader(mute=0.3, blank=0.3), 7)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_global_order(loader: Any, world: int) -> None:
    ranks = [keys(loader(batch_size=4 // world, world=world, rank=rank), 5) for rank in range(world)]
    assert in_turn(ranks, 4 // world) == keys(loader(batch_size=4), 5)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_global_order_is_the_same_for_any_number_of_ranks_and_workers(
    loader: Any, world: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if workers:  # ranks x workers processes; forked from one that has imported all
        monkeypatch.setattr("mirasol.data.loading.loader.START", "fork")
    ranks = [keys(loader(batch_size=8 // world, world=world, rank=r, workers=workers), 6) for r in range(world)]
    order = in_turn(ranks, 8 // world)
    assert hashlib.sha256(" ".join(order).encode()).hexdigest() == ORDER


AUGMENTED = {
    "mute": 0.2,
    "blank": 0.2,
    "augmentation": Augmentation(crop=0.3, flip=0.5, spec_time=0.4, spec_mel=0.4, mixup=0.4, jitter=1),
}


@pytest.mark.parametrize(("batch_size", "batches"), [(3, 1), (3, 7), (7, 3)])
def test_augmented_clips_come_again_on_resume(loader: Any, batch_size: int, batches: int) -> None:
    whole = itertools.islice(iter(loader(batch_size=batch_size, **AUGMENTED)), batches, None)
    assert digest(whole, 5) == digest(loader(batch_size=batch_size, start=batch_size * batches, **AUGMENTED), 5)


def test_augmented_clips_are_the_same_from_workers(loader: Any) -> None:
    assert digest(loader(workers=2, **AUGMENTED), 7) == digest(loader(**AUGMENTED), 7)


def test_a_sample_is_augmented_otherwise_in_each_epoch(loader: Any) -> None:
    samples = loader(augmentation=Augmentation(crop=0.1)).samples
    by_key = {s.key: s.clip for s in (samples[g] for g in range(TRAIN))}
    again = [s for s in (samples[g] for g in range(TRAIN, 2 * TRAIN)) if s.clip.video is not None]
    plain = {s.key: s.clip for s in (loader().samples[g] for g in range(TRAIN))}
    changed = [s for s in again if not np.array_equal(s.clip.video, plain[s.key].video)]
    assert all(not np.array_equal(s.clip.video, by_key[s.key].video) for s in changed)


def test_what_is_off_takes_no_draws_from_the_rest(loader: Any) -> None:
    """Which clips, which texts and what is muted do not change with the augmentation."""
    plain = itertools.islice(loader(mute=0.3, blank=0.3), 8)
    other = itertools.islice(loader(mute=0.3, blank=0.3, augmentation=Augmentation(crop=0.3, spec_mel=0.3)), 8)
    for one, two in zip(plain, other, strict=True):
        assert (one.keys, one.example_ids) == (two.keys, two.example_ids)
        assert torch.equal((one.audio == SILENCE).flatten(1).all(1), (two.audio == SILENCE).flatten(1).all(1))


def test_mixup_weighs_the_texts_of_both_clips_by_their_share(loader: Any) -> None:
    mixed = 0
    for batch in itertools.islice(loader(augmentation=Augmentation(mixup=1.0), caption_weight=0.0), 8):
        assert batch.text_weight.shape == (3, 4)
        for ids, weight in zip(batch.example_ids, batch.text_weight.tolist(), strict=True):
            assert sum(weight) == pytest.approx(2)
            if ids[2]:
                mixed += 1
                assert weight[0] == weight[1] and weight[2] == weight[3]
                assert len({i.partition("-")[0] for i in ids}) == 2  # two texts of each of two clips
    assert mixed > 4


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses() -> None:
    each, targets, text = torch.randn(4, 9), torch.tensor([1, 5, 2, 8]), torch.arange(4)
    mixture, _ = text_loss(each, targets, text, torch.tensor([[0.75, 0.75, 0.25, 0.25]]), 0.1)
    first, _ = text_loss(each, targets, text, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), 0.1)
    second, _ = text_loss(each, targets, text, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 0.1)
    assert mixture.item() == pytest.approx(0.75 * first.item() + 0.25 * second.item(), rel=1e-6)


def test_making_a_loader_leaves_torchs_random_numbers_alone(loader: Any) -> None:
    before = torch.get_rng_state()
    next(iter(loader()))
    assert torch.equal(before, torch.get_rng_state())


def test_memory_is_used_again_and_never_while_somebody_holds_it(loader: Any) -> None:
    whole = iter(loader(batch_size=4))
    held = list(itertools.islice(whole, 6))  # more than are remembered
    kept = [batch.video.clone() for batch in held]
    places = {batch.video.data_ptr() for batch in held}
    assert len(places) == 6
    part = held[3].video[1:, 0]
    del held[:5]
    for _ in range(6):
        assert next(whole).video.data_ptr() not in (held[0].video.data_ptr(), part.data_ptr())
    assert torch.equal(held[0].video, kept[5]) and torch.equal(part, kept[3][1:, 0])
    alone = [next(whole).video.data_ptr() for _ in range(4)]
    assert len(set(alone)) < 4


def test_texts_are_drawn_without_repeats_with_one_caption(loader: Any) -> None:
    for batch in itertools.islice(loader(texts_per_clip=3), 8):
        for row, weight in zip(batch.example_ids, batch.text_weight.tolist(), strict=True):
            assert len(set(row)) == 3
            assert [i.startswith("c") for i in row] == [False, False, True]
            assert weight == pytest.approx([1, 1, 0.3])


def test_all_questions_come_up(loader: Any) -> None:
    rows = [row for batch in itertools.islice(loader(), 40) for row in batch.example_ids]
    found = Counter(row[0].partition("-")[2] for row in rows)
    assert set(found) == {"0", "1", "2"} and min(found.values()) > 20


def test_missing_texts_weigh_nothing(loader: Any) -> None:
    batch = next(iter(loader(texts_per_clip=6, caption_weight=0.0)))
    assert batch.text_weight.tolist() == [[1, 1, 1, 0, 0, 0]] * 3
    assert not batch.tokens[:, 3:].any() and not batch.answer_mask[:, 3:].any()


def test_captions_alone_weigh_one(loader: Any) -> None:
    batch = next(iter(loader(tasks=("caption",), texts_per_clip=1, caption_weight=0.3)))
    assert batch.text_weight.tolist() == [[1]] * 3
    assert all(row[0].startswith("c") for row in batch.example_ids)


def test_muting_and_blanking_take_their_share_and_never_both(loader: Any) -> None:
    silent = black = both = full = 0
    for batch in itertools.islice(loader(mute=0.4, blank=0.4), 240):
        present = batch.video_present.all(1) & batch.audio_present.all(1)
        quiet = (batch.audio == SILENCE).flatten(1).all(1) & present
        dark = (batch.video[..., :16, :] == 16).flatten(1).all(1) & present
        silent, black, both = silent + int(quiet.sum()), black + int(dark.sum()), both + int((quiet & dark).sum())
        full += int(present.sum())
    assert both == 0
    assert 0.3 < silent / full < 0.5 and 0.3 < black / full < 0.5


def test_absent_modalities_are_filled_and_marked(evaluation: Any) -> None:
    video, audio, has_video, has_audio = (
        torch.cat([getattr(b, name) for b in evaluation()])
        for name in ("video", "audio", "video_present", "audio_present")
    )
    assert has_audio.all(1).tolist() == [True, False, True, False] * 2
    assert has_video.all(1).tolist() == [True, True, False, True] * 2
    assert (audio[~has_audio.all(1)] == SILENCE).all()
    assert (video[~has_video.all(1)][..., :16, :] == 16).all()


def test_evaluation_has_every_clip_once_with_all_its_texts(evaluation: Any) -> None:
    batches = evaluation(batch_size=5)
    assert [len(b.keys) for b in batches] == [5, 3]
    ids = [i for b in batches for row in b.example_ids for i in row]
    assert sorted(ids) == sorted(f"q{n}-{q}" for n in (0, 1, 4, 5, 8, 9, 12, 13) for q in range(3))


def test_muted_is_present_silence(evaluation: Any) -> None:
    for plain, muted in zip(evaluation(), evaluation(Condition.muted), strict=True):
        assert (muted.audio == SILENCE).all()
        assert torch.equal(muted.audio_present, plain.audio_present) and torch.equal(muted.video, plain.video)


def test_blanked_is_present_black(evaluation: Any) -> None:
    for plain, blanked in zip(evaluation(), evaluation(Condition.blanked), strict=True):
        assert (blanked.video[..., :16, :] == 16).all() and (blanked.video[..., 16:, :] == 128).all()
        assert torch.equal(blanked.video_present, plain.video_present) and torch.equal(blanked.audio, plain.audio)


def test_swapped_gives_every_clip_with_sound_anothers(evaluation: Any) -> None:
    plain, swapped = ([a for b in evaluation(c) for a in b.audio] for c in (Condition.unchanged, Condition.swapped))
    heard = [i for i, a in enumerate(plain) if not (a == SILENCE).all()]
    donors = [next(j for j in heard if torch.equal(plain[j], swapped[i])) for i in heard]
    assert all(i != j for i, j in zip(heard, donors, strict=True)) and sorted(donors) == heard
    assert all((swapped[i] == SILENCE).all() for i in range(TRAIN) if i not in heard)


def test_swapping_follows_its_seed(evaluation: Any) -> None:
    swapped = [digest(evaluation(Condition.swapped, seed=seed), 3) for seed in (1, 2, 3, 1)]
    assert len(set(swapped)) > 1 and swapped[0] == swapped[3]


def test_a_derangement_has_no_fixed_point() -> None:
    for seed in range(50):
        assert all(a != b for a, b in augment.derangement(seed, [3, 5, 8], ["x", "y", "z"]).items())


def test_a_partner_is_of_another_group() -> None:
    """Clips of one video may share a sound: to give one of them another's would change nothing."""
    clips, groups = list(range(9)), list("aaaabbbcd")
    for seed in range(50):
        donors = augment.derangement(seed, clips, groups)
        assert sorted(donors.values()) == clips
        assert all(groups[a] != groups[b] for a, b in donors.items())


def test_one_group_alone_still_swaps() -> None:
    assert all(a != b for a, b in augment.derangement(0, [4, 6, 7], ["x", "x", "x"]).items())


@pytest.mark.parametrize("condition", ["deaf", Condition.shuffled])
def test_a_condition_that_no_clip_can_have_is_refused(evaluation: Any, condition: Any) -> None:
    with pytest.raises(ValueError, match=str(condition)):
        evaluation(condition)


def test_a_task_that_nobody_asked_is_told(loader: Any) -> None:
    with pytest.raises(MirasolError, match="no clip of the split train has an example of task audio_class"):
        loader(tasks=("audio_class",))


def test_a_text_longer_than_the_cache_is_told(tiny_shards: TinyShards, tokenizer: Tokenizer) -> None:
    short = Tokenizer([(t, 0.0) for t in tokenizer._texts], max_text=6)
    with pytest.raises(MirasolError) as error:
        loader_of(
            ShardDataset(tiny_shards.folder, "train"), short,
            tasks=("qa",), batch_size=1, texts_per_clip=1, caption_weight=0, seed=1,
        )  # fmt: skip
    expected = (
        "24 text(s) are longer than the text cache of 6 tokens: set max_text of the phase, or of the tokenizer where"
    )
    assert expected in str(error.value)
    assert "example 'q0-0' of media/0.mp4: " in str(error.value)


def test_features_match_the_spec_of_the_shards(tiny_shards: TinyShards, tmp_path: Path) -> None:
    assert ShardDataset(tiny_shards.folder, "train").spec == TINY_CLIP
    assert np.isfinite(ShardDataset(tiny_shards.folder, "train").read(0).audio).all()
