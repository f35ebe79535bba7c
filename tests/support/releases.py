"""Released bundles that answer differently, made of the tiny bundle."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from support.bundle import WORDS, tiny_bundle

from mirasol.core.files import write_json
from mirasol.runtime.contract import CONTRACT_FILE, read_contract
from mirasol.tokenizer import SPECIAL

ENDED = "bell"  # with this word for the end mark, the tiny model's answer to `service.QUESTION` is empty


def write_bundle(target: Path, end: str = "") -> Path:
    """A copy of the tiny bundle in ``target``, with the word ``end`` for the end mark of answers if given."""
    shutil.copytree(tiny_bundle(), target)
    if end:
        contract = read_contract(target)
        tokenizer = dataclasses.replace(contract.tokenizer, eos=len(SPECIAL) + WORDS.index(end))
        (target / CONTRACT_FILE).write_text(dataclasses.replace(contract, tokenizer=tokenizer).to_json())
    return target


def add_release(registry: Path, number: int, end: str = "") -> Path:
    """The release `model-NUMBER` in ``registry``."""
    target = write_bundle(registry / f"model-{number}", end)
    write_json(target / "release.json", {"tag": target.name, "commit": f"c{number}", "metrics": {}})
    return target
