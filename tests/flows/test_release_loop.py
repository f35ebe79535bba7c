"""The release loop: files in a store -> data version -> what is stale -> gate -> release -> served; and back.

The server, the worker, the store, git's origin and the service are real; the stages of the project are stand-ins whose
"model" is one of three exported bundles, by the number of clips, and whose result is the share of clips labelled `yes`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.prefect_server import Prefect, kill
from support.releases import ENDED, write_bundle
from support.s3 import server  # noqa: F401  (a fixture)
from support.scratch import LIMIT, REPOSITORY, commit, git, make_project, ran, run_dvc, wait_until
from support.service import QUESTION, camera_chunk, events
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.slow

WORK = """\
import json, pathlib, shutil, sys

name = sys.argv[1]
pathlib.Path("runs").mkdir(exist_ok=True)
with open("runs/log", "a") as log:
    log.write(name + "\\n")
pathlib.Path("build").mkdir(exist_ok=True)
if name == "unrelated":
    pathlib.Path("build/unrelated").write_text("of params.yaml alone")
if name == "train":
    pathlib.Path("build/train").write_text(pathlib.Path("data/manifest.jsonl").read_text())
if name == "evaluate":
    answers = [json.loads(line)["answers"][0] for line in open("build/train")]
    pathlib.Path("reports").mkdir(exist_ok=True)
    share = answers.count("yes") / len(answers)
    pathlib.Path("reports/eval.json").write_text(json.dumps({"overall": {"exact_match": share}}))
if name == "export":
    clips = len(open("build/train").readlines())
    shutil.copytree({3: "models/few", 4: "models/many", 5: "models/worse"}[clips], "build/bundle")
"""
DVC_YAML = """\
stages:
  unrelated: {cmd: python3 work.py unrelated, params: [first], outs: [build/unrelated]}
  train: {cmd: python3 work.py train, deps: [data], outs: [build/train]}
  evaluate:
    cmd: python3 work.py evaluate
    deps: [build/train]
    metrics: [{reports/eval.json: {cache: false}}]
  export: {cmd: python3 work.py export, deps: [build/train, models], outs: [build/bundle]}
"""
DEPLOYMENT = """\
name: mirasol
pull:
  - prefect.deployments.steps.set_working_directory: {directory: "{{ $MIRASOL_HOME }}"}
deployments:
  - name: loop
    entrypoint: flows/loop.py:loop
    work_pool: {name: loop}
    parameters: {incoming: INCOMING, settle: 0, push: true}
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    triggers:
      - enabled: true
        expect: [mirasol.new-data]
        match: {prefect.resource.id: mirasol.incoming}
        threshold: 1
"""
FEW, MANY = "bell bell bell bell", ""  # answers of the first two bundles


@dataclass
class Store:
    """Where files arrive and DVC's cache goes: a bucket, or a folder where no S3 server is installed."""

    url: str
    files: Any
    env: dict[str, str]

    def put(self, name: str, content: str) -> None:
        with self.files.open(f"{self.url}/incoming/{name}", "w") as file:
            file.write(content)

    def deliver(self, answers: list[str]) -> None:
        """A clip for each answer, and the annotations of all."""
        rows = ["media,prompt,answers,split"]
        for number, answer in enumerate(answers):
            self.put(f"{number}.mp4", f"not really video {number}\n")
            rows.append(f"{number}.mp4,is it?,{answer},{('train', 'val', 'test')[number % 3]}")
        self.put("annotations.csv", "\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An S3 server of this machine if one is installed, else a folder."""
    if all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "dvc_s3", "flask")):
        files = request.getfixturevalue("server").files
        return Store("s3://media/loop", files, {k: v for k, v in os.environ.items() if k.startswith("AWS_")})
    import fsspec

    return Store(str(tmp_path_factory.mktemp("store")), fsspec.filesystem("file", auto_mkdir=True), {})


@pytest.fixture(scope="module")
def project(prefect: Prefect, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project with its deployment, a worker that serves it, and an origin of its git repository."""
    root = make_project(tmp_path_factory.mktemp("loop") / "project")
    (root / "flows").symlink_to(REPOSITORY / "flows")
    for name, text in (("work.py", WORK), ("dvc.yaml", DVC_YAML)):
        (root / name).write_text(text)
    incoming = f"{store.url}/incoming"
    (root / "prefect.yaml").write_text(DEPLOYMENT.replace("INCOMING", incoming))
    write_bundle(root / "models" / "few")
    write_bundle(root / "models" / "many", ENDED)
    write_bundle(root / "models" / "worse", "red")
    run_dvc(root, "remote", "add", "--default", "store", f"{store.url}/cache")
    git(root, "init", "--quiet", "--bare", "../origin.git")
    git(root, "remote", "add", "origin", "../origin.git")
    commit(root, "Stand-ins")
    prefect.api.post("/work_pools/", json={"name": "loop", "type": "process"}).raise_for_status()
    prefect.command("prefect", "--no-prompt", "deploy", "--all", cwd=root)
    elsewhere = tmp_path_factory.mktemp("worker")
    with (elsewhere / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "loop"],
            cwd=elsewhere,
            env=prefect.env | store.env | {"MIRASOL_HOME": str(root)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield root
    finally:
        kill(worker)


def arrive(prefect: Prefect) -> dict[str, Any]:
    """Say that files have arrived; the loop's run when it has ended."""
    where = {"name": {"any_": ["loop"]}}
    before = {run["id"] for run in prefect.read("/flow_runs", flows=where)}
    event = {
        "occurred": "2026-01-01T00:00:00Z",
        "event": "mirasol.new-data",
        "resource": {"prefect.resource.id": "mirasol.incoming"},
        "id": str(uuid.uuid4()),
    }
    prefect.api.post("/events", json=[event]).raise_for_status()

    def ended() -> dict[str, Any] | None:
        runs = [run for run in prefect.read("/flow_runs", flows=where) if run["id"] not in before]
        final = [run for run in runs if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}]
        return final[0] if final else None

    run: dict[str, Any] = wait_until("the end of the loop's run", ended)
    return run


class Client:
    """A client of the service."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str) -> Any:
        request = urllib.request.Request(self.address + path, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return json.loads(answer.read())

    def socket(self) -> ClientConnection:
        path = f"/api/sessions/{self.call('POST', '/api/sessions')['id']}/stream"
        return connect(self.address.replace("http", "ws") + path, max_size=None)

    def until(self, release: str) -> None:
        wait_until(f"{release} in service", lambda: self.call("GET", "/readyz")["release"] == release)

    def answer(self) -> tuple[str, str]:
        """The answer of a new session, and its release."""
        with self.socket() as socket:
            text, release, *_ = steps(socket, range(1))[0]
            return text, release


def steps(socket: ClientConnection, seeds: range) -> list[Any]:
    """Push chunks and ask after each: answers, releases, probabilities, and chunks that they rest on."""
    found = []
    for seed in seeds:
        socket.send(camera_chunk(seed)[0])
        shown = events(socket, "chunk")[-1]
        socket.send(json.dumps({"type": "ask", "question": QUESTION}))
        *pieces, answer = events(socket, "answer")
        assert "".join(piece["text"] for piece in pieces) == answer["answer"] and shown["index"] == seed
        found.append([answer[key] for key in ("answer", "release", "score", "chunks")])
    return found


@contextlib.contextmanager
def serving(root: Path, env: dict[str, str]) -> Iterator[Client]:
    """`mirasol serve --bundle release:current` in the project."""
    command = [sys.executable, "-m", "mirasol", "serve", "--bundle", "release:current", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, cwd=root, env=env, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        match = re.match(r"http://\S+", service.stderr.readline())
        assert match
        try:
            yield Client(match[0])
        finally:
            service.terminate()
            service.communicate()


def test_from_new_files_to_served_answers_and_back(prefect: Prefect, store: Store, project: Path) -> None:
    store.deliver(["yes", "yes", "no"])
    first = arrive(prefect)
    assert first["state_type"] == "COMPLETED", first["state"]["message"]
    assert ran(project) == ["unrelated", "train", "evaluate", "export"]
    assert git(project, "tag", "--points-at", "HEAD") == "model-1"
    assert (
        git(project, "ls-remote", "origin", "main", "model-1^{}").split()[::2]
        == [git(project, "rev-parse", "HEAD")] * 2
    )
    assert any("files/md5" in path for path in store.files.find(f"{store.url}/cache"))

    with serving(project, prefect.env) as client:
        assert client.answer() == (FEW, "model-1")
        with client.socket() as undisturbed:
            expected = steps(undisturbed, range(6))
        with client.socket() as open_session:
            seen = steps(open_session, range(3))

            store.deliver(["yes", "yes", "no", "yes"])
            assert arrive(prefect)["state_type"] == "COMPLETED"
            assert ran(project) == ["train", "evaluate", "export"]
            client.until("model-2")
            assert client.answer() == (MANY, "model-2")
            seen += steps(open_session, range(3, 6))
        assert seen == expected, "the session that was open lost something"

        commits = git(project, "rev-list", "--count", "HEAD")
        assert arrive(prefect)["state_type"] == "COMPLETED"
        assert (ran(project), git(project, "rev-list", "--count", "HEAD")) == ([], commits), "nothing was new"

        store.deliver(["yes", "no", "no", "no", "no"])
        refused = arrive(prefect)
        assert refused["state_type"] == "FAILED"
        assert "worse than the released model, not released" in refused["state"]["message"]
        assert git(project, "tag", "--list").split() == ["model-1", "model-2"]
        assert client.answer() == (MANY, "model-2")

        prefect.command("mirasol", "releases", "rollback", cwd=project)
        client.until("model-1")
        assert client.answer() == (FEW, "model-1")
