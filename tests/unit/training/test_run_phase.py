"""A phase from shards to weights, on a world of a few clips."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import copy_without, small_model, train

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups
from mirasol.training.config import ANSWER, RESUME, Processes
from mirasol.training.curves import read_lines
from mirasol.training.data_module import takes_waveforms
from mirasol.training.resume import Checkpoints
from mirasol.training.weights import load_model, save_weights

OUTPUTS = ("weights.safetensors", "config.json", "curves.jsonl")


def outputs(project: Path, name: str = "finetune") -> dict[str, bytes]:
    return {file: (project / "build" / name / file).read_bytes() for file in OUTPUTS}


def test_equal_runs_give_equal_bytes(world: Path, tmp_path: Path) -> None:
    first = train(world, tmp_path / "a")
    assert train(world, tmp_path / "b") == first
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")


def test_waveforms_train_as_features_do(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: log-mel is made within the step, of the same draws; validation has features either way."""
    changed = {"steps": 6, "spec_time": 0.3, "spec_mel": 0.3, "mixup": 0.4, "jitter": 1, "mute": 0.2}
    features = train(world, tmp_path / "features", **changed)
    monkeypatch.setattr("mirasol.training.data_module.takes_waveforms", lambda device, clip: True)
    waveforms = train(world, tmp_path / "waveforms", **changed)
    assert features["train"]["loss"] == pytest.approx(waveforms["train"]["loss"], rel=1e-3)
    assert features["val"]["n"] == waveforms["val"]["n"]
    assert list((tmp_path / "waveforms" / "runs" / "cache").glob("*/train.waves-1"))


def test_a_gpu_takes_waveforms_and_a_cpu_features() -> None:
    assert takes_waveforms(torch.device("cuda", 0), ClipSpec())
    assert not takes_waveforms(torch.device("cpu"), ClipSpec())
    assert not takes_waveforms(torch.device("cuda"), ClipSpec(sampling="spread"))


def test_another_seed_gives_other_weights(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path / "a", steps=1)
    train(world, tmp_path / "b", steps=1, seed=2)
    assert outputs(tmp_path / "a")["weights.safetensors"] != outputs(tmp_path / "b")["weights.safetensors"]


def test_curves_hold_losses_state_of_x_and_accuracy_from_the_first_checkpoint_on(world: Path, tmp_path: Path) -> None:
    metrics = train(world, tmp_path, steps=12, checkpoint_every=5)
    lines = read_lines(tmp_path / "build" / "finetune" / "curves.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 12]
    for line in lines:
        assert {"loss", "text", "latent", "video", "grad_norm", "lr", "x_std_time", "x_neighbour_cosine"} <= set(line)
        assert line["val"]["n"] == sum(family["n"] for family in line["val"]["families"].values()) > 0
    assert metrics["steps"] == 12
    assert metrics["val"] == lines[-1]["val"]


def test_a_phase_changes_only_what_it_trains(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path, "pretrain", steps=1)
    train(world, tmp_path, "audio_pretrain", init="pretrain")
    before, after = (load_model(tmp_path / "build" / name) for name in ("pretrain", "audio_pretrain"))
    groups = parameter_groups(before)
    old, new = before.state_dict(), after.state_dict()
    frozen = [name for group, names in groups.items() if group != "audio" for name in names]
    assert all(torch.equal(old[name], new[name]) for name in frozen)
    assert not all(torch.equal(old[name], new[name]) for name in groups["audio"])


def test_a_finished_run_is_not_run_again(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = train(world, tmp_path)
    before = outputs(tmp_path)
    shutil.rmtree(tmp_path / "build" / "finetune")
    assert train(world, tmp_path) == first
    assert outputs(tmp_path) == before
    assert "resumes at step 4 of 4" in capfd.readouterr().err


def test_another_configuration_starts_again_and_says_why(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(world, tmp_path / "a")
    train(world, tmp_path / "a", lr=5e-4)
    assert "starts from step 0" in (said := capfd.readouterr().err)
    assert "settings.phase.lr (0.001, now 0.0005)" in said
    train(world, tmp_path / "b", lr=5e-4)
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")


def interrupted(world: Path, project: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Train up to step 2 of 4."""

    def stop(self: Any, step: int) -> Path:
        if step == 4:
            raise KeyboardInterrupt
        return at(self, step)

    at = Checkpoints.path
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Checkpoints, "path", stop)
        train(world, project, **changes)


def test_a_run_that_goes_on_anyway_says_so_in_its_report(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(world, tmp_path, monkeypatch)
    with pytest.raises(MirasolError, match="step 2 of an unfinished run"):
        train(world, tmp_path, lr=5e-4)
    monkeypatch.setenv(ANSWER, RESUME)
    found = train(world, tmp_path, lr=5e-4)
    assert found["resumed_anyway"] == [{"step": 2, "changed": ["settings.phase.lr (0.001, now 0.0005)"]}]


def test_weights_that_are_no_numbers_stop_the_run_at_once(world: Path, tmp_path: Path) -> None:
    model = Mirasol(small_model(world))
    with torch.no_grad():
        model.text.embedding.weight.fill_(float("nan"))
    save_weights(tmp_path / "build" / "bad", model)
    with pytest.raises(MirasolError, match=r"finetune: loss is nan at step 1,.* clips: [0-9a-f]{16}, "):
        train(world, tmp_path, init="bad")
    assert not (tmp_path / "build" / "finetune").exists()
    assert not (tmp_path / "runs" / "finetune" / "checkpoints").exists()


def test_a_first_phase_without_examples_hands_its_weights_on(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path, "pretrain", steps=1)
    other = copy_without(world, tmp_path / "shards", "audio_class")
    metrics = train(other, tmp_path, "audio_pretrain", init="pretrain")
    assert metrics == {"steps": 0, "skipped": "no training example of task audio_class"}
    assert outputs(tmp_path, "audio_pretrain")["weights.safetensors"] == outputs(tmp_path, "pretrain")[OUTPUTS[0]]


def test_a_phase_after_a_skipped_one_knows_what_is_forgotten(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path, "pretrain", steps=1)
    other = copy_without(world, tmp_path / "shards", "audio_class")
    train(other, tmp_path, "audio_pretrain", init="pretrain")
    found = train(world, tmp_path, init="audio_pretrain", before=("caption",), steps=1)
    assert set(found["forgotten"]) == {"caption"}


def test_every_task_is_scored_on_as_many_clips_as_asked_for(world: Path, tmp_path: Path) -> None:
    alone = train(world, tmp_path / "alone", "audio_pretrain", steps=1, val_clips=2)["val"]
    beside = train(world, tmp_path / "beside", steps=1, val_clips=2, before=("audio_class",))["val"]
    assert beside["n"] > 0
    assert alone["families"]["audio_class"]["n"] == beside["families"]["audio_class"]["n"] == 2


def test_texts_of_phases_before_that_are_too_long_are_not_scored_and_counted(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = train(world, tmp_path, before=("caption",), steps=1, caption_weight=0.0, max_text=24)["val"]
    assert found["n"] > 0 and "caption" not in found["families"]
    assert re.search(r"\d+ val text\(s\) of caption have more than max_text 24 tokens", capfd.readouterr().err)


@pytest.mark.parametrize(
    "changes",
    [
        {"trained": "reconstruction", "video_weight": 0.0},
        {"text_weight": 0.0, "latent_weight": 0.0, "video_weight": 0.0},
    ],
)
def test_a_phase_in_which_nothing_would_learn_is_an_error(world: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(MirasolError, match="nothing would learn"):
        train(world, tmp_path, **changes)


def test_finetuning_without_examples_is_an_error(world: Path, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="task qa"):
        train(copy_without(world, tmp_path / "shards", "qa"), tmp_path)


def test_a_batch_must_divide_among_the_devices(world: Path, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"finetune.batch_size is 4.*divide among 3"):
        train(world, tmp_path, processes=Processes(3))


def test_a_device_that_is_not_there_is_named(world: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MirasolError, match=r"training\.accelerator gpu"):
        train(world, tmp_path, accelerator="gpu")


def test_weights_to_start_from_must_be_of_the_same_sizes(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path, "pretrain", steps=1)
    path = tmp_path / "build" / "pretrain" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mels": 99}))
    with pytest.raises(MirasolError, match=r"clip.mels: mels 99, now 32"):
        train(world, tmp_path, init="pretrain")


def test_a_finished_run_hands_its_best_weights_on_again(world: Path, tmp_path: Path) -> None:
    first = train(world, tmp_path, keep="best")
    before = outputs(tmp_path)
    shutil.rmtree(tmp_path / "build" / "finetune")
    assert train(world, tmp_path, keep="best") == first
    assert outputs(tmp_path) == before


def test_the_best_weights_are_handed_on_and_a_wait_without_better_ones_ends_the_phase(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.25, 0.5, 0.5, 0.25, 1.0])

    def scored(self: Any, trainer: Any, module: Any) -> dict[str, Any]:
        return {"exact_match": next(scores), "text": 1.0, "n": 4, "families": {}}

    monkeypatch.setattr("mirasol.training.validation.Validation.run", scored)
    found = train(world, tmp_path / "long", steps=10, checkpoint_every=1, keep="best", patience=2)
    assert (found["steps"], found["kept"], found["val"]["exact_match"]) == (4, 2, 0.5)
    assert [path.name for path in (tmp_path / "long/runs/finetune/best").iterdir()] == ["2"]
    kept = (tmp_path / "long/runs/finetune/best/2/weights.safetensors").read_bytes()
    assert outputs(tmp_path / "long")["weights.safetensors"] == kept
    again = train(world, tmp_path / "long", steps=10, checkpoint_every=1, keep="best", patience=2)
    assert again == found, "a phase that had stopped is not trained further"
