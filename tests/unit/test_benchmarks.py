"""The benchmarks run and write their figures, and the one for a GPU needs only torch and pytorch-lightning."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.training import small_world

from mirasol.cli.bench import BENCHMARKS

ROOT = Path(__file__).parents[2]
CLAIMS = {
    "attention": {"chunk_attention_time", "chunk_attention_memory"},
    "cluster": set(),  # tests/cluster has its measurements
    "combiner": {"ttm_step_flat", "combiner_step_t64", "combiner_model_time", "combiner_model_memory"},
    "decode": {"random_chunk", "frames_decoded_per_wanted"},
    "dvc_layout": {f"files_over_link_{step}" for step in ("add", "status", "status_cold", "change")},
    "evaluate": {"evaluation_speed", "closed_set_speed"},
    "export": {
        *("parity_1000", "parity_1000_transformer", "parity_1000_ttm", "ort_vs_eager", "ort_ttm_flat", "bound_vs_run"),
    },
    "gpu_check": {"graph_breaks", "host_syncs"},  # and those of train: tests/unit/test_gpu_check.py
    "label": {"labels_needed"},
    "large": {"large_disk", "large_memory"},
    "load": {"load_vs_decode", "load_vs_rgb24", "load_vs_decode_logmel", "loader_overhead", "resume_cold"},
    "own": set(),  # it writes no ratios, and trains
    "peer": {"peer_train_time", "peer_forward_time"},
    "predict": {"auroc_right", "auroc_foreign", "predict_equals_answer"},
    "scale": set(),  # seconds and bytes, no ratios
    "seeds": set(),  # it writes no ratios, and trains for hours
    "shards": {"shards_vs_ffmpeg", "shards_two_processes", "shards_remux", "bytes_vs_jpeg"},
    "start": {"first_over_other"},
    "stream": {
        *("realtime", "realtime_cpu", "chunk_p99_p50", "resident_growth", "streams_16", "streams_equal"),
    },
    "train": {"graph_breaks", "host_syncs", "matmul_share", "demo_matmul_share"},  # and `gradient_split` of a long run
    "training_loop": {"trainer_over_bare_loop"},
    "try": set(),  # it writes no ratios, and fetches packages
}
SLOW = ("combiner", "dvc_layout", "export", "large", "load", "scale", "stream", "training_loop")
PARTS = {"split", "cluster_faults", "cluster_saves", "cluster_cancel"}  # of `train` and `cluster`
NEEDS_FFMPEG = pytest.mark.skipif(
    not (shutil.which("ffmpeg") or importlib.util.find_spec("imageio_ffmpeg")),
    reason="needs an ffmpeg executable: `pip install imageio-ffmpeg`",
)
TORCH = {"torch", "torchgen", "functorch", "triton", "nvidia", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}
TORCH |= {"filelock", "fsspec", "typing_extensions.py", "setuptools"}  # what torch itself needs
LIGHTNING = {
    "pytorch_lightning",
    "lightning_fabric",
    "lightning_utilities",
    "torchmetrics",
    "yaml",
    "numpy",
    "numpy.libs",
}
LIGHTNING |= {"packaging", "tqdm"}


@pytest.fixture(scope="module")
def common() -> ModuleType:
    """benchmarks/common.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("common", ROOT / "benchmarks" / "common.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in the project's folder, with the sources that are tested."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    "name",
    [
        *("attention", "decode", "evaluate", "label", "peer", "predict"),
        *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW),
        pytest.param("shards", marks=[pytest.mark.slow, NEEDS_FFMPEG]),
    ],
)
def test_a_benchmark_writes_what_it_promises(name: str, tmp_path: Path) -> None:
    done = run(f"benchmarks/{name}.py", "--quick", "--rounds", "2", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result) == {"name", "commit", "machine", "ratios", "figures"}
    assert result["name"] == name
    skipped = "skipped" in result["figures"]
    assert set(result["ratios"]) == (set() if skipped else CLAIMS[name])
    for found in result["ratios"].values():
        assert set(found) == {"value", "ci95", "rounds"}
        assert found["ci95"][0] <= found["value"] <= found["ci95"][1]


@pytest.mark.slow
def test_own_data_are_trained_with_proposed_settings_next_to_baselines(tmp_path: Path) -> None:
    words = ("--quick", "--work", str(tmp_path / "own"), "--json", str(tmp_path / "out.json"))
    done = run("benchmarks/own.py", *words)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text()).values()
    assert all(len(found[name]["ci95"]) == 2 for name in ("model", "majority", "linear"))
    assert "no headline: 4 clip(s)" in done.stdout


@pytest.mark.slow
def test_the_start_on_many_clips_is_measured(tmp_path: Path) -> None:
    world = small_world(tmp_path / "world")
    made = ("--shards", str(world / "shards"), "--tokenizer", str(world / "tokenizer.json"))
    done = run("benchmarks/start.py", *("--clips", "20", "--rounds", "1"), *made, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["ratios"]) == CLAIMS["start"]
    assert result["figures"]["first"][0]["order"] == result["figures"]["second"][0]["order"]


def test_a_claim_without_what_it_needs_is_left_out_with_the_reason(tmp_path: Path) -> None:
    for name, body in (
        ("tests/support/slurm", "def missing(): return 'no Slurm here'"),
        ("benchmarks/cluster_faults", "def sigterm(): return {'steps_lost': {'value': 0, 'rounds': [0, 0]}}"),
        ("benchmarks/cluster_saves", "def async_save_blocking(): raise ValueError('a fault')"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").write_text(body)
    for name in ("cluster", "common"):
        shutil.copy(ROOT / "benchmarks" / f"{name}.py", tmp_path / "benchmarks")
    wanted = ("cancel_seconds", "steps_lost", "async_save_blocking")
    done = run(str(tmp_path / "benchmarks/cluster.py"), "--only", *wanted, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 1  # a fault is no reason to leave a claim out in silence
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["ratios"] == {"steps_lost": {"value": 0.0, "ci95": [0.0, 0.0], "rounds": 2}}
    assert result["figures"]["left_out"] == {
        "cancel_seconds": "no Slurm here",
        "async_save_blocking": "FAILED: ValueError('a fault')",
    }


def test_a_share_of_20_of_20_has_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.import_module("cluster").interval("faults_survived", {"value": 1.0, "rounds": [{}] * 20})
    assert found == {"value": 1.0, "ci95": [0.8389, 1.0], "rounds": 20}


def test_every_benchmark_is_a_command() -> None:
    files = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if 'if __name__ == "__main__"' in path.read_text()
    }
    assert files - PARTS == set(BENCHMARKS) == set(CLAIMS)


@pytest.fixture
def torch_alone(tmp_path: Path) -> list[str]:
    """Python as on a machine that has torch and what torch needs, and no other package."""
    return with_packages(tmp_path, TORCH)


@pytest.fixture
def torch_and_lightning(tmp_path: Path) -> list[str]:
    """The same with pytorch-lightning and what that needs."""
    return with_packages(tmp_path, TORCH | LIGHTNING)


def with_packages(tmp_path: Path, names: set[str]) -> list[str]:
    packages, found = tmp_path / "packages", Path(torch.__file__).parents[1]
    packages.mkdir()
    for name in names:
        if (found / name).exists():
            (packages / name).symlink_to(found / name)
    return [sys.executable, "-S", "-c", f"import sys; sys.path += [{str(packages)!r}, {str(ROOT / 'src')!r}]\n"]


def alone(command: list[str], program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command[:-1], command[-1] + program], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_train_benchmark_needs_nothing_but_torch_and_lightning(
    torch_and_lightning: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    program = f"""
import runpy
sys.path.insert(0, "benchmarks")
sys.argv = ["train.py", "--quick", "--rounds", "2", "--json", {str(out)!r}]
runpy.run_path("benchmarks/train.py", run_name="__main__")
"""
    done = alone(torch_and_lightning, program)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert set(result["ratios"]) == CLAIMS["train"]
    assert result["figures"]["clips_per_second"] > 0
    assert result["figures"]["preset"] == "demo"


def test_every_module_of_the_model_needs_nothing_but_torch(torch_alone: list[str]) -> None:
    modules = sorted(f"mirasol.model.{path.stem}" for path in (ROOT / "src/mirasol/model").glob("[!_]*.py"))
    done = alone(torch_alone, "import mirasol, " + ", ".join(modules) + "\nassert 'numpy' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_outside_the_project_bench_says_where_to_run(tmp_path: Path) -> None:
    program = "import sys; from mirasol.cli.main import main; sys.argv = ['mirasol', 'bench', 'attention']; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert "benchmarks/attention.py is not here: run in the project's folder" in done.stderr


def test_a_ratio_is_the_median_of_rounds_within_its_interval(common: ModuleType) -> None:
    found = common.ratio([2.0, 4.0, 9.0], [1.0, 1.0, 1.0])
    assert found["value"] == 4.0
    assert found["ci95"] == [2.0, 9.0]
    assert found["rounds"] == 3


def test_rounds_take_turns_and_every_second_goes_backwards(common: ModuleType) -> None:
    calls: list[str] = []
    common.in_turn({name: (lambda name=name: calls.append(name)) for name in "ab"}, 2)
    assert calls == ["a", "b", "a", "b", "b", "a"]
    with pytest.raises(ValueError, match="0 rounds"):
        common.in_turn({}, 0)


def test_peak_memory_is_counted_to_the_byte(common: ModuleType) -> None:
    def work() -> None:
        first = torch.zeros(2**20)  # 4 MiB
        second = torch.zeros(2**19)  # 2 MiB
        del first
        torch.zeros(2**19)
        del second

    assert common.peak_mib(work) == pytest.approx(6.0, abs=0.01)
