"""Weights at rest: equal bytes for equal weights, and a clear word about files that are no model."""

from __future__ import annotations

import errno
import json
import weakref
from pathlib import Path

import pytest
import torch
from support.model import tiny_config, tiny_model

from mirasol.core.errors import MirasolError
from mirasol.model.mirasol import Mirasol
from mirasol.training import weights
from mirasol.training.start import initial_model
from mirasol.training.weights import CONFIG, WEIGHTS, load_model, save_weights


def test_a_loaded_model_is_the_saved_one(tmp_path: Path) -> None:
    model = tiny_model()
    save_weights(tmp_path, model)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_large_weights_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = tiny_model(), tmp_path / WEIGHTS
    save_weights(tmp_path, model)
    load_model(tmp_path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    monkeypatch.setattr(weights, "MAPPED_BYTES", 1)
    loaded = load_model(tmp_path)
    assert str(path) in Path("/proc/self/maps").read_text()
    for (name, a), b in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.requires_grad == b.requires_grad, name
    with torch.no_grad():  # as training does: the file is as before
        next(loaded.parameters()).zero_()
    monkeypatch.undo()
    assert all(torch.equal(a, b) for a, b in zip(load_model(tmp_path).parameters(), model.parameters(), strict=True))


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    save_weights(tmp_path / "a", tiny_model(seed=3))
    save_weights(tmp_path / "b", tiny_model(seed=3))
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_one_tensor_at_a_time_is_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sharded model, each would be a copy in memory."""
    gathered: list[weakref.ref[torch.Tensor]] = []

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        assert not any(ref() is not None for ref in gathered)
        found = tensor.detach().clone()
        gathered.append(weakref.ref(found))
        return found

    monkeypatch.setattr(weights, "whole", gather)
    model = tiny_model()
    save_weights(tmp_path, model)
    assert len(gathered) == len(model.state_dict())


def test_all_processes_gather_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gather is a collective: another order would mix tensors up."""
    orders: list[list[int]] = [[], []]
    model = tiny_model()
    model.text.embedding.weight.data = model.text.embedding.weight.data.double()  # types come one after the other
    for leader, order in zip((True, False), orders, strict=True):
        monkeypatch.setattr(weights, "whole", lambda tensor, order=order: order.append(tensor.data_ptr()) or tensor)
        save_weights(tmp_path, model, leader=leader)
    assert orders[0] == orders[1]


def test_a_full_disk_leaves_the_weights_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path, tiny_model(seed=3))
    before = (tmp_path / WEIGHTS).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "write_tensor", full)
    with pytest.raises(MirasolError, match=r"weights\.safetensors: the disk is full"):
        save_weights(tmp_path, tiny_model(seed=4))
    assert (tmp_path / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_weights(tmp_path, tiny_model())
    (tmp_path / name).unlink()
    with pytest.raises(MirasolError, match=f"{name}: no such file"):
        load_model(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny_model())
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MirasolError, match=r"weights.safetensors: damaged"):
        load_model(tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny_model())
    values = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(values | {"vocabulary": 7}))
    with pytest.raises(MirasolError, match=r"not the weights of the model in config\.json"):
        load_model(tmp_path)


def test_a_config_of_another_version_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny_model())
    values = json.loads((tmp_path / CONFIG).read_text())
    del values["num_queries"]
    (tmp_path / CONFIG).write_text(json.dumps(values))
    with pytest.raises(MirasolError, match=r"config.json: not the sizes of a model.*num_queries"):
        load_model(tmp_path)


def test_parameters_that_make_no_model_are_refused() -> None:
    with pytest.raises(MirasolError, match="the parameters make no model: m = 99 combined features of a chunk"):
        initial_model(tiny_config(num_queries=99), None, seed=0)


def test_a_ttm_of_an_earlier_version_says_what_to_do(tmp_path: Path) -> None:
    save_weights(tmp_path, Mirasol(tiny_config(combiner="ttm", ttm_encoder=False)))
    with pytest.raises(
        MirasolError, match="train again, or `mirasol weights import` it, which skips the comb"
    ) as caught:
        initial_model(tiny_config(combiner="ttm"), tmp_path, seed=0)
    assert len(str(caught.value).splitlines()) == 2


def test_a_config_from_before_an_option_existed_is_read_with_its_default(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny_model())
    values = json.loads((tmp_path / CONFIG).read_text())
    for name in ("overlap", "audio_reconstruction", "cross_every", "cross_hidden"):
        del values[name]
    (tmp_path / CONFIG).write_text(json.dumps(values))
    assert load_model(tmp_path).config == tiny_model().config
