"""`mirasol try`: the shipped bundle answers as its card says, and the demo's takes over where it fits."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from mirasol.cli.main import main
from mirasol.cli.tryout import fits, shipped
from mirasol.export.slim import LARGEST, size_of
from mirasol.runtime.contract import Contract, read_contract
from mirasol.runtime.model import load
from mirasol.runtime.samples import SAMPLES, read_samples


@pytest.fixture(scope="module")
def contract() -> Contract:
    return read_contract(shipped())


def test_the_shipped_bundle_is_small() -> None:
    assert size_of(shipped()) <= LARGEST


def test_the_shipped_bundle_answers_as_its_card_says() -> None:
    model, card = load(shipped(), threads=1, provider="cpu"), (shipped() / "README.md").read_text(encoding="utf-8")
    for one in read_samples(shipped() / SAMPLES):
        answer = str(model.answer(shipped() / SAMPLES / one.file, one.question))
        assert f"| {one.file} | {one.question} | {answer} | {one.expected} |" in card


def test_its_card_names_commit_and_source(contract: Contract) -> None:
    card = (shipped() / "README.md").read_text(encoding="utf-8")
    assert contract.provenance.commit and contract.provenance.commit in card
    assert "from the bundle with the hash `" in card


def test_it_answers_and_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mirasol", "try", "--no-page"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    said, noted = capsys.readouterr()
    assert all(one.question in said for one in read_samples(shipped() / SAMPLES))
    assert said.count("  after ") == 4  # every half second of a clip of 2 s
    command = noted.partition("ask about a file:  ")[2].splitlines()[0]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, said.split()[-1]), done.stderr


def test_a_bundle_that_learnt_the_questions_takes_over_and_another_does_not(contract: Contract) -> None:
    samples = read_samples(shipped() / SAMPLES)
    assert fits(contract, contract, samples)
    assert not fits(dataclasses.replace(contract, prompts=("Is there a dog?",)), contract, samples)


def test_without_prompts_the_data_decide(contract: Contract) -> None:
    samples = read_samples(shipped() / SAMPLES)
    old = dataclasses.replace(contract, prompts=None)
    assert fits(old, contract, samples)
    other = dataclasses.replace(old.provenance, data="0123.dir")
    assert not fits(dataclasses.replace(old, provenance=other), contract, samples)
