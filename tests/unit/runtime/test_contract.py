"""The runtime reads a bundle only if it equals the export."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.media.clip import ClipSpec
from mirasol.runtime.contract import (
    CONTRACT_FILE,
    CONTRACT_VERSION,
    GRAPHS,
    MOST_PROMPTS,
    AudioFormat,
    Contract,
    GoldenSpec,
    GraphSpec,
    ModelFacts,
    Provenance,
    StateSpec,
    TensorSpec,
    TokenizerFacts,
    VideoFormat,
    read_contract,
)


def make_contract(folder: Path) -> Contract:
    """A contract over three files that are no graphs: reading it does not load them."""
    names = [f"{name}.onnx" for name in GRAPHS] + ["tokenizer.json", "golden.npz", "LICENSE"]
    for name in names:
        (folder / name).write_bytes(name.encode())
    graph = GraphSpec(
        file="",
        inputs=(TensorSpec("x", "float32", (1, 4, 8), "features"), TensorSpec("kv", "float32", (1, 3), "state")),
        outputs=(TensorSpec("h", "float32", (1, 4, 8), "features"), TensorSpec("kv_next", "float32", (1, 3), "state")),
        states=(StateSpec("kv", "kv_next", 0.0),),
    )
    return Contract(
        version=CONTRACT_VERSION,
        clip=ClipSpec(),
        video=VideoFormat(),
        audio=AudioFormat(),
        model=ModelFacts("transformer", "causal", 8, 4, 16, 100, 48, 8, 1000, "float32"),
        tokenizer=TokenizerFacts("tokenizer.json"),
        opset=18,
        graphs={name: dataclasses.replace(graph, file=f"{name}.onnx") for name in GRAPHS},
        opsets={"18": {name: f"{name}.onnx" for name in GRAPHS}},
        golden=GoldenSpec("golden.npz", 4, 6, 1e-5),
        provenance=Provenance("abc", False, None, None),
        tools={"torch": "2"},
        licence="LICENSE",
        files={name: sha256_file(folder / name) for name in names},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / CONTRACT_FILE).write_text(make_contract(tmp_path).to_json(), encoding="utf-8")
    return tmp_path


def rewrite(bundle: Path, **changes: object) -> None:
    """Put a changed contract, with a right hash of its own, in place."""
    contract = dataclasses.replace(read_contract(bundle), **changes)
    (bundle / CONTRACT_FILE).write_text(contract.to_json(), encoding="utf-8")


def test_a_contract_reads_back_equal(bundle: Path) -> None:
    contract = read_contract(bundle)
    assert contract == make_contract(bundle)
    assert json.loads((bundle / CONTRACT_FILE).read_text())["sha256"] == contract.sha256


def test_prompts_are_read_back_and_a_contract_without_them_stays_as_it_was(bundle: Path) -> None:
    assert "prompts" not in json.loads((bundle / CONTRACT_FILE).read_text())
    rewrite(bundle, prompts=("Which sound came first?",))
    assert read_contract(bundle).prompts == ("Which sound came first?",)


def test_too_many_prompts_are_refused(bundle: Path) -> None:
    rewrite(bundle, prompts=tuple(map(str, range(MOST_PROMPTS + 1))))
    with pytest.raises(MirasolError, match="2001 prompts, at most 2000"):
        read_contract(bundle)


def test_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"nowhere is not a bundle: no such folder.*make demo"):
        read_contract(tmp_path / "nowhere")


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(MirasolError, match=r"README\.md is not a bundle: it is a file"):
        read_contract(tmp_path / "README.md")


def test_folder_without_contract(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"holds no contract\.json"):
        read_contract(tmp_path)


@pytest.mark.parametrize("name", [f"{GRAPHS[0]}.onnx", "tokenizer.json", "golden.npz"])
def test_a_flipped_byte_names_its_file(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(MirasolError, match=f"{name} is not the file that was exported"):
        read_contract(bundle)


def test_any_flipped_byte_of_the_contract_is_refused(bundle: Path) -> None:
    path = bundle / CONTRACT_FILE
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with pytest.raises(MirasolError, match=r"contract\.json"):
            read_contract(bundle)


def test_a_missing_graph_is_named(bundle: Path) -> None:
    (bundle / f"{GRAPHS[1]}.onnx").unlink()
    with pytest.raises(MirasolError, match=f"{GRAPHS[1]}.onnx is missing"):
        read_contract(bundle)


def test_another_version_is_refused_with_both_numbers(bundle: Path) -> None:
    rewrite(bundle, version=1)
    with pytest.raises(MirasolError, match="contract version 1, but this mirasol reads version 2"):
        read_contract(bundle)


def test_a_state_whose_shapes_do_not_pair_is_refused(bundle: Path) -> None:
    contract = read_contract(bundle)
    latent = contract.graphs[GRAPHS[1]]
    bad = dataclasses.replace(latent, outputs=(latent.outputs[0], TensorSpec("kv_next", "float32", (1, 4), "state")))
    rewrite(bundle, graphs={**contract.graphs, GRAPHS[1]: bad})
    with pytest.raises(MirasolError, match=f"{GRAPHS[1]}: state kv -> kv_next"):
        read_contract(bundle)


def test_a_file_outside_of_the_bundle_is_refused(bundle: Path) -> None:
    contract = read_contract(bundle)
    rewrite(bundle, files={**contract.files, "../elsewhere": "0"})
    with pytest.raises(MirasolError, match="not a plain file name"):
        read_contract(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("opset"), r"missing \['opset'\]"),
        (lambda values: values.update(extra=1), r"unknown \['extra'\]"),
        (lambda values: values["model"].update(width="wide"), r"contract\.model\.width: 'wide'"),
        (lambda values: values["graphs"]["text_step"].update(inputs=3), r"contract\.graphs\.text_step\.inputs: 3"),
    ],
)
def test_keys_and_types_are_strict(bundle: Path, change: object, message: str) -> None:
    from mirasol.runtime import contract as module

    values = json.loads((bundle / CONTRACT_FILE).read_text())
    del values["sha256"]
    change(values)
    (bundle / CONTRACT_FILE).write_text(module._dump({**values, "sha256": module._hash(values)}))
    with pytest.raises(MirasolError, match=message):
        read_contract(bundle)
