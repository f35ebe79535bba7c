"""The registry of releases: names, the current one, and going back."""

from __future__ import annotations

import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.bundle import tiny_bundle

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.runtime.releases import CURRENT_FILE, VARIABLE, Registry, bundle_hash, resolve


def add(folder: Path, number: int, whole: bool = False) -> None:
    """A release; ``whole``: with a bundle that passes the check."""
    target = folder / f"model-{number}"
    if whole:
        shutil.copytree(tiny_bundle(), target)
    else:
        target.mkdir(parents=True)
        (target / "contract.json").write_text("{}")
    metrics = {"reports/eval.json:overall": {"value": 0.9 + number / 100, "released": None}}
    write_json(target / "release.json", {"tag": target.name, "commit": f"c{number}", "metrics": metrics})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Three releases, as early versions wrote them: without a record of the current one."""
    for number in (1, 2, 10):
        add(tmp_path, number)
    monkeypatch.setattr("mirasol.runtime.releases.read_contract", lambda folder: None)
    return Registry(tmp_path)


def names(registry: Registry) -> list[str]:
    return [release.name for release in registry.releases()]


def test_releases_are_listed_in_order_with_their_facts(registry: Registry) -> None:
    assert names(registry) == ["model-1", "model-2", "model-10"]
    last = registry.releases()[-1]
    assert (last.commit, last.result, last.bundle) == ("c10", 1.0, bundle_hash(last.folder))


def test_without_a_record_the_newest_is_current(registry: Registry) -> None:
    assert registry.get("current").name == "model-10"
    assert registry.rollback().name == "model-2"


def test_promote_and_rollback(registry: Registry) -> None:
    assert registry.promote("model-1").name == "model-1"
    assert registry.get("current").name == "model-1"
    assert registry.rollback().name == "model-10"
    assert registry.get("current").name == "model-10"


def test_a_release_whose_folder_is_gone_is_passed_over(registry: Registry) -> None:
    registry.promote("model-1")
    shutil.rmtree(registry.folder / "model-10")
    assert registry.rollback().name == "model-2"


def test_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="nothing to go back to: no release yet: make one with `python"):
        Registry(tmp_path).rollback()
    add(tmp_path, 1)
    with pytest.raises(
        MirasolError, match="only model-1 was current: choose a release with `mirasol releases promote NAME`"
    ):
        Registry(tmp_path).rollback()


def test_an_unknown_name_is_refused_with_the_known_ones(registry: Registry) -> None:
    with pytest.raises(MirasolError, match=r"no release 'model-3'. It holds: model-1, model-2, model-10"):
        registry.promote("model-3")


def test_a_damaged_bundle_does_not_become_current(tmp_path: Path) -> None:
    add(tmp_path, 1, whole=True)
    add(tmp_path, 2)
    Registry(tmp_path).promote("model-1")
    with pytest.raises(MirasolError, match="contract version None"):
        Registry(tmp_path).promote("model-2")
    assert Registry(tmp_path).get("current").name == "model-1"


def test_promotions_at_once_are_all_recorded(registry: Registry) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(registry.promote, ["model-1", "model-2"] * 3))
    history = json.loads((registry.folder / CURRENT_FILE).read_text())["history"]
    assert {"model-1", "model-2"} == set(history[3:])
    assert all(one != other for one, other in itertools.pairwise(history))


def test_a_damaged_record_names_the_remedy(registry: Registry) -> None:
    (registry.folder / CURRENT_FILE).write_text("{")
    with pytest.raises(MirasolError, match="mirasol releases promote NAME"):
        registry.current()


def test_a_bundle_is_named_by_its_release(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(registry.folder))
    assert resolve("release:model-2") == registry.folder / "model-2"
    assert resolve(Path("release:current")) == registry.folder / "model-10"
    assert resolve("build/bundle") == Path("build/bundle")
