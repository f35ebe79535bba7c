"""cluster.yaml: valid files, and all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mirasol.pipeline.launch import config
from mirasol.pipeline.launch.config import Cluster, SlurmSpec, load_cluster
from mirasol.pipeline.params.errors import ParamsError
from mirasol.training.config import Processes, TrainingConfig

ROOT = Path(__file__).parents[4]


def written(folder: Path, text: str) -> Path:
    (folder / "cluster.yaml").write_text(text)
    return folder


def problems(folder: Path) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load_cluster(folder)
    return [f"{p.line} {p.path}: {p.message}" for p in caught.value.problems]


def test_without_a_file_one_process_trains_here(tmp_path: Path) -> None:
    cluster = load_cluster(tmp_path)
    assert cluster == Cluster()
    assert (cluster.processes, cluster.launches) == (Processes(), False)


TWO = {"cores": 2, "has_accelerator": False}


@pytest.mark.parametrize(
    ("text", "machine", "training", "devices"),
    [
        ("nodes: 1\n", TWO, {"micro_batch": 4}, 2),
        ("nodes: 1\n", TWO, {"micro_batch": 0}, 1),
        ("nodes: 1\n", TWO, {"micro_batch": 8}, 1),
        ("nodes: 1\n", TWO, {"micro_batch": 2}, 1),
        ("nodes: 1\n", TWO, {"micro_batch": 4, "threads": 2}, 1),
        ("nodes: 1\n", {"cores": 1, "has_accelerator": False}, {"micro_batch": 4}, 1),
        ("nodes: 1\n", {"cores": 2, "has_accelerator": True}, {"micro_batch": 4}, 1),
        ("nodes: 1\n", {"cores": 2, "has_accelerator": True}, {"micro_batch": 4, "accelerator": "cpu"}, 2),
        ("launcher: slurm\nslurm:\n", TWO, {"micro_batch": 4}, 1),
        ("devices: 4\n", TWO, {"micro_batch": 4}, 4),
    ],
)
def test_two_processes_share_a_step_on_a_cpu_if_it_has_parts_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, machine: Any, training: Any, devices: int
) -> None:
    for name, value in machine.items():
        monkeypatch.setattr(config, name, lambda value=value: value)
    filled = load_cluster(written(tmp_path, text)).filled(8, TrainingConfig(**({"threads": 1} | training)))
    assert filled.devices == devices


def test_a_file_of_comments_is_the_default(tmp_path: Path) -> None:
    assert load_cluster(written(tmp_path, "# launcher: slurm\n")) == Cluster()


def test_the_example_is_valid_and_states_every_key(tmp_path: Path) -> None:
    text = (ROOT / "examples/cluster.yaml").read_text()
    cluster = load_cluster(written(tmp_path, text))
    assert (cluster.launcher, cluster.processes) == ("slurm", Processes(8, 2))
    assert all(f"\n  {name}:" in text for name in SlurmSpec.__dataclass_fields__)
    assert cluster.at("shards").slurm.partition == "cpu"


def test_slurm_launches_even_one_process(tmp_path: Path) -> None:
    assert load_cluster(written(tmp_path, "launcher: slurm\nslurm:\n")).launches


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    section = "slurm:\n  time: 4h\n  partitoin: gpu\n  account: 7\n  extra: --nodes=3 -N2\n"
    found = problems(written(tmp_path, f"launcher: slrum\ndevices: -1\nnode: 2\n{section}"))
    assert [line.split(":")[0] for line in found] == [
        "1 launcher", "2 devices", "3 node", "5 slurm.time", "6 slurm.partitoin", "7 slurm.account", "8 slurm.extra",
    ]  # fmt: skip
    assert "did you mean `slurm`?" in found[0]
    assert "did you mean `nodes`?" in found[2]
    assert "--nodes=3, -N2: the launcher sets these" in found[6]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("devices: 2\nnodes: 2\n", "2 nodes: `launcher: local` starts processes of this machine alone"),
        ("storage: https://host/runs\n", "1 storage: 'https://host/runs': expected a path or a URL that begins"),
        ("slurm: gpu\n", "1 slurm: got 'gpu' (text), expected a section"),
        ('slurm:\n  extra: "--comment=\'x"\n', "2 slurm.extra: cannot be split into words"),
        ("- local\n", "1 : got a list, expected keys of launcher, devices, nodes, storage, slurm, stages"),
        ("launcher: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_file_says_where_and_why(tmp_path: Path, text: str, part: str) -> None:
    assert any(part in line for line in problems(written(tmp_path, text)))


STAGES = """\
launcher: slurm
nodes: 2
devices: 8
slurm:
  partition: gpu
  account: us
stages:
  shards:
    slurm:
      partition: cpu
  pretrain:
    nodes: 4
  export:
    launcher: local
"""


@pytest.mark.parametrize(
    ("stage", "launcher", "processes", "partition"),
    [
        ("finetune", "slurm", Processes(8, 2), "gpu"),
        ("pretrain", "slurm", Processes(8, 4), "gpu"),
        ("shards", "slurm", Processes(1, 1), "cpu"),
        ("export", "local", Processes(1, 1), "gpu"),
        ("evaluate", "local", Processes(1, 1), ""),
    ],
)
def test_a_stage_runs_at_its_place(
    tmp_path: Path, stage: str, launcher: str, processes: Processes, partition: str
) -> None:
    place = load_cluster(written(tmp_path, STAGES)).at(stage)
    assert (place.launcher, place.processes, place.slurm.partition) == (launcher, processes, partition)


def test_an_option_of_a_stage_leaves_the_others_as_above(tmp_path: Path) -> None:
    assert load_cluster(written(tmp_path, STAGES)).at("shards").slurm.account == "us"


def test_all_problems_of_stages_are_reported_at_once(tmp_path: Path) -> None:
    text = "launcher: slurm\nstages:\n  shard:\n    nodes: 1\n  shards:\n    nodes: 2\n    slurm:\n      time: 4h\n"
    text += "  export: 3\n  evaluate:\n    partition: cpu\n  finetune:\n    launcher: local\n    nodes: 2\n"
    found = problems(written(tmp_path, text))
    assert [line.split(":")[0] for line in found] == [
        "3 stages.shard", "6 stages.shards.nodes", "8 stages.shards.slurm.time", "9 stages.export",
        "11 stages.evaluate.partition", "14 stages.finetune.nodes",
    ]  # fmt: skip
    assert "did you mean `shards`?" in found[0]
    assert "shards is one process: only pretrain, audio_pretrain, finetune run in several" in found[1]


@pytest.mark.parametrize("time", ["30", "4:00:00", "2-12", "1-00:30:00", "UNLIMITED"])
def test_time_limits_of_sbatch_are_taken(tmp_path: Path, time: str) -> None:
    assert load_cluster(written(tmp_path, f'slurm:\n  time: "{time}"\n')).slurm.time == time
