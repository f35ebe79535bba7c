"""Files that services read: the site's pages, the workflows, the images, the citation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import commands, fault

import mirasol

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MADE = {"index.md", "api.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}  # by docs/hooks.py


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def instructions() -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile: name and arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    stages: list[list[tuple[str, str]]] = [[]]
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, " ".join(rest.split())))
    return stages[1:]


def stage(name: str) -> dict[str, list[str]]:
    """The instructions of a stage, by name."""
    (found,) = [part for part in instructions() if part[0][1].endswith(f" AS {name}")]
    return {key: [rest for k, rest in found if k == key] for key, _ in found}


def test_every_page_is_in_the_navigation() -> None:
    pages = {next(iter(entry.values())) for entry in load(ROOT / "mkdocs.yml")["nav"]}
    written = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("*.md")}
    assert pages == written | MADE | {"decisions/README.md"}


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in folder.glob("0*.md") if f"]({page.name})" not in listed] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_commands_that_exist(path: Path) -> None:
    steps = [step for job in load(path)["jobs"].values() for step in job["steps"]]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    found = [(command, fault(command)) for line in lines for command in commands(line.replace("${{", "X"))]
    assert found and [f"{' '.join(command)}: {why}" for command, why in found if why] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_can_only_read_and_ends(path: Path) -> None:
    flow = load(path)
    assert flow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in flow["jobs"].values())


def test_only_a_job_that_runs_none_of_our_code_may_write() -> None:
    jobs = {(path.name, name): job for path in WORKFLOWS for name, job in load(path)["jobs"].items()}
    writing = {place: job for place, job in jobs.items() if "permissions" in job}
    assert set(writing) == {("release.yml", "publish")}
    assert all("checkout" not in step.get("uses", "") for job in writing.values() for step in job["steps"])


@pytest.mark.parametrize("name", ["runtime", "full"])
def test_an_image_does_not_run_as_root(name: str) -> None:
    assert stage(name)["USER"][-1] == "1000"


def test_base_images_have_a_version() -> None:
    stages = instructions()
    names = {part[0][1].rpartition(" AS ")[2] for part in stages}
    images = {part[0][1].partition(" ")[0] for part in stages} - names
    assert images == {"python:${PYTHON}-slim"}


def test_programs_start_without_a_shell() -> None:
    assert [rest for part in instructions() for key, rest in part if key == "CMD" and not rest.startswith("[")] == []


def test_apt_leaves_no_lists_and_takes_no_recommended_packages() -> None:
    (run,) = [rest for rest in stage("full")["RUN"] if "apt-get" in rest]
    assert "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists/*" in run


def test_the_runtime_image_takes_the_locked_versions_and_no_torch() -> None:
    (run,) = stage("runtime")["RUN"]
    assert "--constraint /tmp/requirements.lock" in run and "[serve]" in run and "torch" not in run


def test_images_hold_neither_data_nor_history() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".git", ".venv", "build", "data", "runs", ".dvc/cache", ".dvc/config.local"} <= set(ignored)


def test_the_citation_has_the_version() -> None:
    assert load(ROOT / "CITATION.cff")["version"] == mirasol.__version__
