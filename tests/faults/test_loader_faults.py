"""Damaged shards in training: reported, listed, replaced by seed and number; too many of them are an error."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.loading import SETTINGS, KilledAtSeven, digest, in_turn, keys, loader, loader_of, tokenizer  # noqa: F401  (fixtures)
from support.shards import TinyShards, tiny_shards  # noqa: F401  (a fixture)
from support.training import small_world, train

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.failures import Damage, Failures, met, report
from mirasol.data.loading.loader import TrainingLoader
from mirasol.tokenizer import Tokenizer

TRAIN = 8  # clips


def reported(folder: Path, samples: int) -> dict[str, Any]:
    """The report of one process about all lists in ``folder``."""
    return report(met(folder, samples, 0, 0))


def flip(folder: Path, number: int, kind: str, split: str = "train", after: int = 20) -> str:
    """Turn over a bit of a clip's file; its key."""
    shards = ShardDataset(folder, split)
    tar, entry = shards._places[number]
    path = folder / shards._tars.names[tar]
    data = bytearray(path.read_bytes())
    data[entry.places[kind][0] + after] ^= 4
    path.write_bytes(data)
    return shards.keys[number]


@pytest.fixture
def copy(tiny_shards: TinyShards, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(tiny_shards.folder, tmp_path / "shards"))


@pytest.fixture
def damaged(copy: Path) -> tuple[Path, list[str]]:
    """Two of eight clips with a flipped bit, and their keys."""
    return copy, [flip(copy, 0, "mp4"), flip(copy, 3, "json", after=0)]


@pytest.fixture
def training(tokenizer: Tokenizer, tmp_path: Path) -> Any:  # noqa: F811
    def make(folder: Path, *, share: float = 0.5, runs: Path | None = None, **changes: Any) -> TrainingLoader:
        ranks = {name: changes[name] for name in ("rank", "world") if name in changes}
        failures = Failures(runs, share, start=changes.get("start", 0), **ranks)
        shards = ShardDataset(folder, "train", any_size=True)
        return loader_of(shards, tokenizer, failures=failures, **(SETTINGS | changes))

    return make


def run(batches: Iterable[Any], count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def lines(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(runs.glob("damaged-*.jsonl")) for line in path.open()]


def test_a_flipped_bit_is_replaced_and_told(copy: Path, tmp_path: Path, training: Any, capfd: Any) -> None:
    key = flip(copy, 0, "mp4")
    found = keys(training(copy, runs=tmp_path, batch_size=4), 6)
    assert key not in found and len(found) == 6 * 4
    assert [line["sample"] // TRAIN for line in lines(tmp_path)] == [0, 1, 2]  # once an epoch
    assert {line["key"] for line in lines(tmp_path)} == {key}
    assert [found[line["sample"]] for line in lines(tmp_path)] == [line["instead"] for line in lines(tmp_path)]
    told = f"clip {key} is damaged: train-00000.tar: mp4: the bytes do not match their hash; taken instead: clip "
    assert capfd.readouterr().err.count(told) == 1


def test_all_other_samples_are_those_of_sound_shards(
    copy: Path,
    training: Any,
    loader: Any,  # noqa: F811
) -> None:
    key = flip(copy, 0, "flac")
    for ours, sound in zip(keys(training(copy), 6), keys(loader(), 6), strict=True):
        assert ours == sound or sound == key


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_a_resumed_run_repeats_the_replacements(
    damaged: tuple[Path, list[str]], tmp_path: Path, training: Any, batches: int
) -> None:
    folder, _ = damaged
    whole = iter(training(folder, runs=tmp_path / "whole", mute=0.3))
    run(whole, batches)
    rest = digest(whole, 6)
    run(training(folder, runs=tmp_path / "killed", mute=0.3), batches + 2)  # some samples past the checkpoint
    again = training(folder, runs=tmp_path / "killed", mute=0.3, start=3 * batches)
    assert digest(again, 6) == rest
    whole_lines, killed_lines = lines(tmp_path / "whole"), lines(tmp_path / "killed")
    assert sorted(map(str, killed_lines)) == sorted(map(str, whole_lines)) and len(killed_lines) > 2


def test_workers_and_ranks_replace_alike(damaged: tuple[Path, list[str]], tmp_path: Path, training: Any) -> None:
    folder, _ = damaged
    alone = keys(training(folder, runs=tmp_path / "1", batch_size=4), 6)
    assert keys(training(folder, runs=tmp_path / "w", batch_size=4, workers=2), 6) == alone
    ranks = [keys(training(folder, runs=tmp_path / "2", batch_size=2, world=2, rank=rank), 6) for rank in (0, 1)]
    assert in_turn(ranks, 2) == alone
    assert reported(tmp_path / "1", 24) == reported(tmp_path / "w", 24) == reported(tmp_path / "2", 24)


def test_a_clip_whose_texts_are_lost_is_left_out_and_told(damaged: tuple[Path, list[str]], training: Any) -> None:
    folder, (_, lost) = damaged
    found = training(folder, batch_size=1)
    assert len(found.samples.clips) == TRAIN - 1 and lost not in keys(found, 2 * TRAIN)
    assert found.failures.clips >= {lost}


def test_a_truncated_tar_gives_what_it_still_holds(
    copy: Path, tmp_path: Path, training: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path, clean = copy / "train-00001.tar", ShardDataset(copy, "train")
    cut = clean._places[4][1].places["mp4"][0] + 10  # in the middle of the second of its three clips
    path.write_bytes(path.read_bytes()[:cut])
    found = set(keys(training(copy, runs=tmp_path, batch_size=4), 6))
    assert found == set(clean.keys) - set(clean.keys[4:6])
    assert reported(tmp_path, 24)["clips"] == 2
    assert "train-00001.tar has" in capfd.readouterr().err


def test_more_damage_than_the_budget_is_an_error(damaged: tuple[Path, list[str]], training: Any) -> None:
    folder, found = damaged
    run(training(folder, share=0.25), 6)
    with pytest.raises(
        MirasolError, match=r"2 of 8 clips are damaged, more than training\.max_damaged = 0\.2"
    ) as error:
        run(training(folder, share=0.2), 6)
    assert all(key in str(error.value) for key in found)


def test_the_budget_counts_what_an_interrupted_run_met(
    damaged: tuple[Path, list[str]], tmp_path: Path, training: Any
) -> None:
    folder, _ = damaged
    run(training(folder, share=1.0, runs=tmp_path), 6)
    clips = Failures(tmp_path, 0.2, start=18).clips
    assert len(clips) == 1  # the clip without texts is told anew by the loader
    with pytest.raises(MirasolError, match="2 of 8 clips are damaged"):
        training(folder, share=0.2, runs=tmp_path, start=18)


def test_lines_of_ranks_that_are_no_more_go_with_their_samples(tmp_path: Path) -> None:
    for rank in range(4):
        text = "".join(
            json.dumps({"sample": s, "key": "k", "why": "w", "instead": "i"}) + "\n" for s in (rank, 8 + rank)
        )
        (tmp_path / f"damaged-{rank}.jsonl").write_text(text + '{"sample": 3, "ke')  # the last cut by a kill
    for rank in (0, 1):
        Failures(tmp_path, 1.0, start=8, rank=rank, world=2)
    assert sorted(line["sample"] for line in lines(tmp_path)) == [0, 1, 2, 3]
    assert reported(tmp_path, 8) == {"clips": 1, "replaced": 4, "list": [{"clip": "k", "why": "w"}]}


def test_without_a_list_the_first_damaged_clip_is_an_error(
    damaged: tuple[Path, list[str]],
    tokenizer: Tokenizer,  # noqa: F811
) -> None:
    folder, _ = damaged
    with pytest.raises(MirasolError, match=r"train-00001\.tar: clip .*\.json is damaged"):
        loader_of(ShardDataset(folder, "train"), tokenizer, **SETTINGS)


def test_all_clips_damaged_ends_the_run_whatever_the_budget(copy: Path, training: Any) -> None:
    for number in range(TRAIN):
        flip(copy, number, "flac" if number in (2, 6) else "mp4")
    with pytest.raises(MirasolError, match="is damaged"):
        run(training(copy, share=1.0), 6)


def test_a_phase_reports_what_it_replaced_and_a_sound_one_says_nothing(tmp_path: Path) -> None:
    world = small_world(tmp_path / "world")
    assert "damaged" not in train(world, tmp_path / "sound", steps=6)
    key = flip(world / "shards", 1, "mp4")
    figures = train(world, tmp_path / "damaged", steps=6, max_damaged=0.5)
    why = "train-00000.tar: mp4: the bytes do not match their hash"
    assert figures["damaged"] == {"clips": 1, "replaced": 2, "list": [{"clip": key, "why": why}]}
    with pytest.raises(MirasolError, match=r"more than training\.max_damaged = 0\.01 of the split train"):
        train(world, tmp_path / "strict", steps=6)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("small"))


def test_damaged_clips_of_val_are_left_out_of_the_score_told_and_listed(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound = train(world, tmp_path / "sound", val_clips=100)
    assert "damaged" not in sound
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    folder = tmp_path / "world/shards"
    lost = {flip(folder, 0, "mp4", "val"), flip(folder, 1, "json", "val")}
    figures = train(tmp_path / "world", tmp_path / "run", val_clips=100, max_damaged=0.7)
    assert 0 < figures["val"]["n"] < sound["val"]["n"]
    assert figures["train"].keys() == sound["train"].keys() and figures["train"]["loss"] == sound["train"]["loss"]
    assert (figures["damaged"]["clips"], figures["damaged"]["val"], figures["damaged"]["replaced"]) == (2, 2, 0)
    assert {line["key"] for line in lines(tmp_path / "run/runs/finetune")} == lost
    assert {line["split"] for line in lines(tmp_path / "run/runs/finetune")} == {"val"}
    told = capfd.readouterr().err
    assert all(told.count(f"clip {key} is damaged") == 1 for key in lost)  # though evaluated twice


def test_more_damage_in_val_than_the_budget_is_an_error(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    flip(tmp_path / "world/shards", 0, "mp4", "val")
    with pytest.raises(MirasolError, match=r"1 of \d+ clips are damaged, more than .* of the split val"):
        train(tmp_path / "world", tmp_path / "run", val_clips=100, max_damaged=0.05)


def test_a_resumed_run_keeps_what_earlier_evaluations_left_out(tmp_path: Path) -> None:
    Failures(tmp_path, 1.0, split="val").record([Damage(None, "v", "why")], 4)
    Failures(tmp_path, 1.0, start=8)
    again = Failures(tmp_path, 1.0, start=8, split="val")
    again.record([Damage(None, "v", "why")], 4)
    assert again.clips == {"v"} and len(lines(tmp_path)) == 1
    assert reported(tmp_path, 16) == {"clips": 1, "replaced": 0, "list": [{"clip": "v", "why": "why"}], "val": 1}
    Failures(tmp_path, 1.0)
    assert lines(tmp_path) == []  # a run that starts anew has met nothing


def test_a_killed_process_is_an_error_that_names_what_it_read(training: Any, copy: Path) -> None:
    killed = training(copy, workers=2)
    killed.samples.__class__ = KilledAtSeven
    with pytest.raises(MirasolError, match=f"sample 7 \\(clip {killed.samples.key(7)}\\).*training.workers"):
        run(killed, 20)
