"""An engine loads exactly the files of the contract."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle import tiny_bundle
from support.scratch import LIMIT

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.runtime.backends import onnxruntime as backend
from mirasol.runtime.contract import CONTRACT_FILE, Contract, read_contract
from mirasol.runtime.engine import Engine


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of its own."""
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


def publish(bundle: Path, contract: Contract) -> None:
    """Put ``contract`` in place, with the hashes that the files now have."""
    files = {name: sha256_file(bundle / name) for name in contract.files}
    (bundle / CONTRACT_FILE).write_text(dataclasses.replace(contract, files=files).to_json())


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
def test_the_golden_outputs_are_reproduced(combiner: str) -> None:
    assert Engine(tiny_bundle(combiner), threads=1).check_golden() < 1e-5


def test_a_tighter_tolerance_than_the_machine_keeps_is_an_error(bundle: Path) -> None:
    contract = read_contract(bundle)
    publish(bundle, dataclasses.replace(contract, golden=dataclasses.replace(contract.golden, tolerance=0.0)))
    with pytest.raises(MirasolError, match="golden outputs differ"):
        Engine(bundle, threads=1).check_golden()


def test_graphs_in_each_other_s_place_are_refused(bundle: Path) -> None:
    contract = read_contract(bundle)
    shutil.copy(bundle / "latent_step.onnx", bundle / "text_step.onnx")
    publish(bundle, contract)
    with pytest.raises(MirasolError, match=r"text_step\.onnx: input \('x', .* is not the contract's \('token', "):
        Engine(bundle)


def test_another_shape_than_the_graph_s_is_named(bundle: Path) -> None:
    contract = read_contract(bundle)
    latent = contract.graphs["latent_step"]
    shape = (1, 3, 99)
    inputs = (dataclasses.replace(latent.inputs[0], shape=shape), *latent.inputs[1:])
    graphs = {**contract.graphs, "latent_step": dataclasses.replace(latent, inputs=inputs)}
    publish(bundle, dataclasses.replace(contract, graphs=graphs))
    with pytest.raises(MirasolError, match=r"latent_step\.onnx: input .*\(1, 3, 24\).* is not .*\(1, 3, 99\)"):
        Engine(bundle)


@pytest.mark.parametrize(
    ("section", "changes", "name"),
    [
        ("clip", {"size": 32}, "video"),
        ("clip", {"mels": 16}, "audio"),
        ("model", {"max_chunks": 3}, "memory"),
        ("model", {"combined": 7}, "x"),
    ],
)
def test_a_contract_that_says_other_sizes_than_its_graphs_is_refused(
    section: str, changes: dict[str, int], name: str, bundle: Path
) -> None:
    contract = read_contract(bundle)
    publish(
        bundle,
        dataclasses.replace(contract, **{section: dataclasses.replace(getattr(contract, section), **changes)}),
    )
    with pytest.raises(MirasolError, match=rf"contract\.json: .*: {name} has shape"):
        Engine(bundle)


def test_a_file_that_is_no_graph_is_named(bundle: Path) -> None:
    contract = read_contract(bundle)
    (bundle / "latent_step.onnx").write_bytes(b"no graph")
    publish(bundle, contract)
    with pytest.raises(MirasolError, match=r"latent_step\.onnx: onnxruntime cannot load it"):
        Engine(bundle)


def test_a_missing_onnxruntime_names_the_command(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "onnxruntime", None)
    with pytest.raises(MirasolError, match=r"pip install 'mirasol-av\[runtime\]'"):
        Engine(bundle)


def test_onnxruntime_sends_nothing_home_and_leaves_no_mark_of_its_own(tmp_path: Path) -> None:
    """From 1.29 on it reports to its makers, and keeps an identifier of the machine, unless it is told not to."""
    home = tmp_path / "home"
    home.mkdir()
    code = "import sys; from mirasol.runtime.engine import Engine; Engine(sys.argv[1], threads=1, provider='cpu')"
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}  # no CI in it: there nothing is sent anyhow
    subprocess.run([sys.executable, "-B", "-c", code, str(tiny_bundle())], env=environment, check=True, timeout=LIMIT)
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []
