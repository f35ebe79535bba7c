"""The deployments of prefect.yaml on a real server, run by a real worker; each test leaves a project that goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from support.scratch import PARAMS, hanging_pids, ran, tell, wait_gone, wait_until

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def _start(prefect: Any) -> str:
    """A run of the pipeline's deployment, made as the user interface makes it."""
    deployment = prefect.api.get("/deployments/name/pipeline/nightly").raise_for_status().json()["id"]
    created = prefect.api.post(f"/deployments/{deployment}/create_flow_run", json={"state": {"type": "SCHEDULED"}})
    return str(created.raise_for_status().json()["id"])


def _end(prefect: Any, run: str) -> dict[str, Any]:
    def final() -> dict[str, Any] | None:
        found = prefect.run(run)
        return found if found["state_type"] in FINAL else None

    return wait_until("the end of the run", final)  # type: ignore[no-any-return]


def _tasks(prefect: Any, run: str) -> dict[str, str]:
    found = prefect.read("/task_runs", flow_runs={"id": {"any_": [run]}}, sort="EXPECTED_START_TIME_ASC")
    return {task["name"]: task["state_type"] for task in found}


def _logs(prefect: Any, run: str) -> list[str]:
    found = prefect.read("/logs", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC", limit=200)
    return [entry["message"] for entry in found]


def _change(root: Path, value: float) -> None:
    (root / "params.yaml").write_text(PARAMS.replace("score: 0.9", f"score: {value}"))


def test_all_flows_are_deployed_and_none_remembers_the_folder(prefect: Any, deployed: Path) -> None:
    found = {d["entrypoint"]: d for d in prefect.read("/deployments")}
    assert set(found) == {f"flows/{name}.py:{name}" for name in ("pipeline", "ingest", "experiment", "loop", "release")}
    for deployment in found.values():
        assert str(deployed) not in str(deployment["pull_steps"])
        assert "MIRASOL_HOME" in str(deployment["pull_steps"])


def test_each_deployment_waits_in_the_queue_of_its_machines(prefect: Any, deployed: Path) -> None:
    found = {d["name"]: d["work_queue_name"] for d in prefect.read("/deployments")}
    kinds = {"cpu": ("shards", "release"), "gpu": ("nightly", "ingest", "experiment", "loop"), "slurm": ("slurm",)}
    assert found == {name: queue for queue, names in kinds.items() for name in names}


def test_a_queue_takes_the_limit_of_the_documentation(prefect: Any, deployed: Path) -> None:
    prefect.command(
        *["prefect", "work-queue", "set-concurrency-limit", "slurm", "1", "--pool", "mirasol"], cwd=deployed
    )
    (queue,) = (q for q in prefect.read("/work_pools/mirasol/queues") if q["name"] == "slurm")
    assert queue["concurrency_limit"] == 1


def test_the_schedule_makes_runs(prefect: Any, deployed: Path) -> None:
    scheduled = wait_until(
        "scheduled runs",
        lambda: prefect.read("/flow_runs", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}}),
    )
    times = sorted(run["expected_start_time"] for run in scheduled)
    assert all("T03:00:00" in time for time in times) and len(set(times)) > 1


def test_a_run_completes_with_a_task_per_stage_and_every_line(prefect: Any, deployed: Path) -> None:
    said = prefect.command("prefect", "deployment", "run", "pipeline/nightly", cwd=deployed)
    match = re.search(r"UUID: ([0-9a-f-]{36})", said)
    assert match, said
    run = match[1]
    ended = _end(prefect, run)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert ran(deployed) == ["first", "second", "third"]
    assert _tasks(prefect, run) == {"first": "COMPLETED", "second": "COMPLETED", "third": "COMPLETED"}
    places = ("1/3 first", "2/3 second", "3/3 third")
    wanted = [f"[{place}] {step}/2 clips" for place in places for step in (1, 2)]
    lines = wait_until("the log lines", lambda: (found := _logs(prefect, run)) and wanted[-1] in found and found)
    assert [line for line in lines if line in wanted] == wanted
    (artifact,) = prefect.read("/artifacts", artifacts={"key": {"any_": ["metrics"]}})
    assert "| overall.exact_match | 0.9 |" in artifact["data"]


def test_a_failing_stage_fails_the_run_with_its_own_text(prefect: Any, deployed: Path) -> None:
    _change(deployed, 0.8)
    flag = tell(deployed, "fail-second")
    run = _start(prefect)
    ended = _end(prefect, run)
    flag.unlink()
    assert ended["state_type"] == "FAILED"
    assert "stage `second` failed: clip 7 of data/manifest.jsonl is no video" in ended["state"]["message"]
    assert _tasks(prefect, run) == {"first": "COMPLETED", "second": "FAILED"}
    assert ran(deployed) == ["second"], "a stage that reported its own error was tried again"


def test_cancelling_leaves_no_process_and_the_next_run_goes_on(prefect: Any, deployed: Path) -> None:
    flag = tell(deployed, "hang-second")
    run = _start(prefect)
    pids = hanging_pids(deployed)
    prefect.api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
    wait_gone(pids)
    assert _end(prefect, run)["state_type"] == "CANCELLED"
    flag.unlink()
    assert ran(deployed) == ["second"]
    following = _end(prefect, _start(prefect))
    assert following["state_type"] == "COMPLETED", following["state"]["message"]
    assert ran(deployed) == ["second", "third"]
