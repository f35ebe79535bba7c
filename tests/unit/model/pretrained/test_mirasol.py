"""Weights of an earlier mirasol model in one of other sizes."""

from __future__ import annotations

import dataclasses

import torch
from support.model import TINY, random_batch, tiny_config, tiny_model

from mirasol.model.mirasol import Mirasol
from mirasol.model.pretrained.mirasol import read_mirasol
from mirasol.model.pretrained.tensor_map import INTERPOLATED, LOADED, TensorMap, account
from mirasol.model.pretrained.vocabulary import Vocabulary

SAME = Vocabulary({i: i for i in range(19)}, 19)


def read(old: Mirasol, new: Mirasol, vocabulary: Vocabulary = SAME) -> TensorMap:
    return read_mirasol(dict(old.state_dict()), old.config, vocabulary, new)


def changed(**changes: object) -> tuple[Mirasol, Mirasol, TensorMap]:
    """An earlier model, a new one with ``changes``, and what the one gives the other."""
    old, new = tiny_model(), tiny_model(seed=1, **changes)
    return old, new, read(old, new)


def test_the_same_model_is_the_same_model() -> None:
    old, new, found = changed()
    assert found.problems == [] and found.unused == {} and found.notes == []
    new.load_state_dict(new.state_dict() | found.tensors)
    batch = random_batch(old.config)
    assert torch.equal(old.encode(batch).h, new.encode(batch).h)


def test_more_frames_and_another_resolution_lose_nothing() -> None:
    old, new, found = changed(frames_per_chunk=8, size=32, audio_columns=16, max_chunks=32)
    assert found.problems == []
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in old.state_dict().items())
    assert len(found.notes) == 4
    new.load_state_dict(new.state_dict() | found.tensors)
    assert new.encode(random_batch(new.config)).h.isfinite().all()


def test_tubes_of_other_sizes_are_resampled_from_the_nearest() -> None:
    _, _, found = changed(tubes=((2, 8, 8), (4, 4, 4)), tube_strides=((2, 8, 8), (4, 8, 8)), patch=0)
    assert found.problems == []
    how = {i: found.sources[f"video_tubes.projections.{i}.weight"] for i in (0, 1)}
    assert how == {0: (INTERPOLATED, "mirasol, 4x8x8 to 2x8x8"), 1: (INTERPOLATED, "mirasol, 4x8x8 to 4x4x4")}


def test_a_tube_of_the_same_shape_is_taken_wherever_it_stands() -> None:
    old, _, found = changed(tubes=((2, 4, 4), (4, 8, 8)), tube_strides=((2, 8, 8), (4, 8, 8)))
    assert torch.equal(found.tensors["video_tubes.projections.1.weight"], old.video_tubes.projections[0].weight)
    assert found.sources["video_tubes.projections.1.weight"][0] == LOADED


def test_another_audio_patch_is_resampled() -> None:
    _, _, found = changed(audio_patch=(2, 8))
    assert found.problems == []
    assert found.sources["audio.project.weight"] == (INTERPOLATED, "mirasol, 4x8 to 2x8")


def test_another_combiner_starts_anew_and_the_rest_is_kept() -> None:
    _, new, found = changed(combiner="ttm")
    assert found.problems == []
    rows = account(new, found)
    assert {part for part, how, _, _ in rows if how == "random"} == {"combiner"}
    assert all("combiner is transformer there, ttm here" in why for why, _ in found.unused.values())


def test_a_part_that_the_earlier_model_did_not_have_starts_anew() -> None:
    old, new = tiny_model(), tiny_model(seed=1)
    without = {key: tensor for key, tensor in old.state_dict().items() if not key.startswith("reconstruction.")}
    found = read_mirasol(without | {"gone.weight": torch.zeros(2)}, old.config, SAME, new)
    assert found.problems == []
    assert {part for part, how, _, _ in account(new, found) if how == "random"} == {"reconstruction"}
    assert found.unused == {"gone.weight": ("a part that is not here", 2)}


def test_every_parameter_is_accounted_for_once() -> None:
    _, new, found = changed(combiner="ttm")
    assert sum(count for _, _, count, _ in account(new, found)) == sum(p.numel() for p in new.parameters())


def test_another_vocabulary_keeps_the_rows_that_it_shares() -> None:
    old, new = tiny_model(), tiny_model(seed=1, vocabulary=21)
    found = read(old, new, Vocabulary({0: 0, 20: 7}, 19))
    assert found.problems == []
    assert torch.equal(found.tensors["text.embedding.weight"][20], old.text.embedding.weight[7])
    assert found.sources["text.embedding.weight"][1] == "mirasol, 2 of 21 pieces, the others random"


def test_another_number_of_combined_features_is_refused_by_key() -> None:
    _, _, found = changed(num_queries=4)
    assert sorted(found.problems) == [
        "combiner.pooled.queries: [3, 24] in the file, expected [4, 24]",
        "text.memory_features: [3, 24] in the file, expected [4, 24]",
    ]


def test_heads_of_another_width_are_refused_though_all_shapes_fit() -> None:
    _, _, found = changed(latent_sizes=dataclasses.replace(TINY, heads=4, head=4))
    assert len(found.problems) == 1
    assert found.problems[0].startswith("latent: latent_sizes is Sizes(layers=2, width=24, hidden=48, heads=2, head=8")


def test_one_part_can_be_taken_alone() -> None:
    old, new = tiny_model(), tiny_model(seed=1)
    found = read_mirasol(dict(old.state_dict()), old.config, SAME, new, lambda part: part == "text")
    assert found.problems == []
    assert {name.split(".")[0] for name in found.tensors} == {"text"}
    assert {why for why, _ in found.unused.values()} == {"not asked for"}


def test_a_config_without_epsilon_is_the_usual_one() -> None:
    config = tiny_config()
    values = config.to_dict()
    for sizes in values.values():
        if isinstance(sizes, dict):
            sizes.pop("eps", None)
    assert type(config).from_dict(values) == config


def test_motion_is_taken_along() -> None:
    own = {"size": 32, "tubes": ((4, 16, 16),), "tube_strides": ((4, 16, 16),), "patch": 0, "motion": True}
    old, new = tiny_model(**own), tiny_model(seed=1, **own)
    found = read(old, new)
    assert found.problems == []
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in old.state_dict().items())
