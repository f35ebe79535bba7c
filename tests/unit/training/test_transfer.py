"""Files of a run behind a URL: what is sent, what counts, what a node with its own folder gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mirasol.core.errors import MirasolError
from mirasol.data.storage import RUNS, RemoteFolder
from mirasol.training.ranks import Ranks
from mirasol.training.transfer import fetch_checkpoint, publish, rows_published, share, tidy


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RUNS, f"file://{tmp_path}/storage")
    return tmp_path / "storage"


def checkpoint(node: Path, step: int, value: float = 0.0) -> Path:
    """A finished checkpoint in the run's folder of ``node``, with its curves."""
    path = node / f"runs/finetune/checkpoints/step-{step}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": torch.tensor(value)}, path)
    (node / "runs/finetune/curves.jsonl").write_text(f"{step}\n")
    return path


def fetch(node: Path) -> dict[str, bytes]:
    """What the run's folder of ``node`` holds after a start."""
    runs = node / "runs/finetune"
    fetch_checkpoint(Ranks(), runs)
    return {str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("*") if path.is_file()}


def test_another_node_gets_the_last_checkpoint_and_its_curves(tmp_path: Path) -> None:
    publish(checkpoint(tmp_path / "one", 3))
    last = checkpoint(tmp_path / "one", 6, 1.0)
    publish(last)
    found = fetch(tmp_path / "two")
    assert found == {"checkpoints/step-6.ckpt": last.read_bytes(), "curves.jsonl": b"6\n"}


def test_an_equal_checkpoint_is_not_fetched_again(tmp_path: Path, storage: Path) -> None:
    path = checkpoint(tmp_path / "one", 3)
    publish(path)
    before = path.stat().st_ino
    fetch(tmp_path / "one")
    assert path.stat().st_ino == before


def test_a_checkpoint_of_that_step_with_other_bytes_is_replaced(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "one", 3)
    publish(path)
    checkpoint(tmp_path / "two", 3, 1.0)
    assert fetch(tmp_path / "two")["checkpoints/step-3.ckpt"] == path.read_bytes()


def test_a_later_checkpoint_that_was_never_sent_moves_aside(tmp_path: Path) -> None:
    publish(checkpoint(tmp_path / "one", 3))
    checkpoint(tmp_path / "one", 6)
    assert {"checkpoints/step-3.ckpt", "checkpoints/step-6.unpublished"} <= {*fetch(tmp_path / "one")}


def test_a_run_that_began_without_the_storage_sends_its_last_checkpoint(tmp_path: Path) -> None:
    last = [checkpoint(tmp_path / "one", step).read_bytes() for step in (3, 6)][1]
    fetch(tmp_path / "one")
    assert fetch(tmp_path / "two")["checkpoints/step-6.ckpt"] == last


def test_rows_come_before_the_checkpoint_and_stay_on_the_first_node_alone(
    tmp_path: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in ("0", "1"):
        monkeypatch.setenv("GROUP_RANK", node)
        path = tmp_path / node / f"runs/finetune/checkpoints/step-3.ckpt.d/rows-a/0000{node}-of-00002.safetensors"
        with rows_published(path):
            path.write_bytes(b"rows")
        assert path.exists() == (node == "0")
    assert sorted(path.name for path in (storage / "finetune").iterdir()) == [
        "rows-a.00000-of-00002.safetensors",
        "rows-a.00001-of-00002.safetensors",
    ]


def test_a_node_gets_all_rows_of_its_checkpoint_and_no_others(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "one", 3)
    torch.save({"mirasol_shards": "rows-a"}, path)
    for name in ("rows-a", "rows-b"):
        rows = path.with_name(f"{path.name}.d") / name / "00000-of-00001.safetensors"
        with rows_published(rows):
            rows.write_bytes(b"rows")
    publish(path)
    found = {name for name in fetch(tmp_path / "two") if "rows" in name}
    assert found == {"checkpoints/step-3.ckpt.d/rows-a/00000-of-00001.safetensors"}


def test_tidy_keeps_what_belongs_to_the_kept_steps(tmp_path: Path, storage: Path) -> None:
    for step in (3, 6, 9):
        publish(checkpoint(tmp_path / "one", step))
    tidy(tmp_path / "one/runs/finetune", [9, 6])
    assert {path.name.split(".")[0] for path in (storage / "finetune").iterdir()} == {"step-6", "step-9"}


def test_a_new_run_takes_the_place_of_later_steps_of_another(tmp_path: Path, storage: Path) -> None:
    publish(checkpoint(tmp_path / "one", 9))
    publish(checkpoint(tmp_path / "one", 3, 1.0))
    assert [path.name.split(".")[0] for path in (storage / "finetune").glob("*.ckpt")] == ["step-3"]


def test_a_damaged_object_is_refused_and_replaces_nothing(tmp_path: Path, storage: Path) -> None:
    publish(checkpoint(tmp_path / "one", 3))
    (marker,) = (storage / "finetune").glob("*.ckpt")
    marker.write_bytes(b"other")
    with pytest.raises(MirasolError, match=r"step-3\.[0-9a-f]{16}\.ckpt: the bytes do not match their hash"):
        fetch(tmp_path / "two")
    assert not [*(tmp_path / "two").rglob("step-*")]


def test_a_file_that_differs_is_replaced_by_the_first_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for node, text in (("one", "first"), ("two", "old")):
        (tmp_path / node).mkdir()
        (tmp_path / node / "words.json").write_text(text)
    monkeypatch.chdir(tmp_path / "one")
    share(Ranks(), "inputs", [Path("words.json")])
    (sent,) = (tmp_path / "storage/files").iterdir()

    class Second(Ranks):
        """Hears the first process, which has sent its file."""

        def agree(self, topic: str, decide: object) -> object:
            return {"words.json": "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"}

    monkeypatch.chdir(tmp_path / "two")
    share(Second(), "inputs", [])
    assert (Path("words.json").read_text(), sent.name) == ("first", "words.a7937b64b8caa58f.json")


def test_without_a_storage_nothing_is_sent(tmp_path: Path, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNS)
    publish(checkpoint(tmp_path / "one", 3))
    tidy(tmp_path / "one/runs/finetune", [])
    fetch(tmp_path / "one")
    assert not storage.exists()


def best(node: Path, step: int, text: str) -> Path:
    """Weights of the best evaluation in the run's folder of ``node``."""
    path = node / f"runs/finetune/best/{step}/weights.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_best_weights_of_another_attempt_are_replaced_though_their_size_is_equal(tmp_path: Path) -> None:
    best(tmp_path / "one", 3, "attempt one")
    publish(checkpoint(tmp_path / "one", 3))
    best(tmp_path / "two", 3, "attempt two")
    assert fetch(tmp_path / "two")["best/3/weights.safetensors"] == b"attempt one"


def test_best_weights_of_a_step_are_there_once(tmp_path: Path, storage: Path) -> None:
    for text in ("attempt one", "attempt two"):
        best(tmp_path / "one", 3, text)
        publish(checkpoint(tmp_path / "one", 3))
    assert [path.read_text() for path in (storage / "finetune").glob("best-3.*")] == ["attempt two"]


def test_a_kill_while_a_new_run_is_sent_leaves_its_checkpoint_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(checkpoint(tmp_path / "one", 9))
    (tmp_path / "one/runs/finetune/checkpoints/step-9.ckpt").unlink()
    new = checkpoint(tmp_path / "one", 3, 1.0)
    changes = 0

    def killed(name: str) -> Callable[..., None]:
        method = getattr(RemoteFolder, name)

        def change(self: RemoteFolder, *args: Any) -> None:
            nonlocal changes
            if ".ckpt" in str(args):
                changes += 1
                if changes > 1:
                    raise KeyboardInterrupt
            method(self, *args)

        return change

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in ("put", "remove"):
            patch.setattr(RemoteFolder, name, killed(name))
        publish(new)
    found = fetch(tmp_path / "one")
    assert {name for name in found if name.endswith(".ckpt")} == {"checkpoints/step-3.ckpt"}


def test_a_damaged_last_checkpoint_is_not_sent_but_the_one_before(tmp_path: Path) -> None:
    before = checkpoint(tmp_path / "one", 3).read_bytes()
    checkpoint(tmp_path / "one", 6).write_bytes(before[:300])
    fetch(tmp_path / "one")
    assert fetch(tmp_path / "two")["checkpoints/step-3.ckpt"] == before


def test_checkpoints_for_good_stay_when_another_node_leads(tmp_path: Path, storage: Path) -> None:
    for step in (10, 15, 20, 25):
        rows = tmp_path / f"one/runs/finetune/checkpoints/step-{step}.ckpt.d/rows-{step}-a/00000-of-00001.safetensors"
        with rows_published(rows):
            rows.write_bytes(b"rows")
        publish(checkpoint(tmp_path / "one", step))
    publish(checkpoint(tmp_path / "two", 30))
    tidy(tmp_path / "two/runs/finetune", [30], every=10)
    found = {path.name.split(".")[0] for path in (storage / "finetune").iterdir()}
    assert found == {"step-10", "step-20", "step-30", "rows-10-a", "rows-20-a"}


def test_no_object_brings_a_file_of_another_name(tmp_path: Path, storage: Path) -> None:
    publish(checkpoint(tmp_path / "one", 3))
    (marker,) = (storage / "finetune").glob("step-3.*.ckpt")
    marker.with_suffix(".job.sh").write_text("a script")
    assert "job.sh" not in fetch(tmp_path / "two")
