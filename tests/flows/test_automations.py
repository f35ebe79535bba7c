"""examples/automations.yaml on a real server: a failed run is notified, announced data start the loop."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.scratch import REPOSITORY, wait_until

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
BLOCK = """\
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block
text = {{"text": "{{{{subject}}}} {{{{body}}}}"}}
print(Block(name="test", url={url!r}, json_data=text).save("test", overwrite=True))
"""
Received = list[str]


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, Received]]:
    """The address of a web hook, and the texts that it has received."""
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body)["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", received
        server.shutdown()


@pytest.fixture(scope="module")
def automated(
    prefect: Any, deployed: Path, webhook: tuple[str, Received], tmp_path_factory: pytest.TempPathFactory
) -> Received:
    """The automations, created from the file as the documentation says; returns the texts of the notifications."""
    folder = tmp_path_factory.mktemp("automations")
    (folder / "block.py").write_text(BLOCK.format(url=webhook[0]))
    block = prefect.command("block", cwd=folder).split()[-1]
    inspected = prefect.command(*["prefect", "deployment", "inspect", "loop/loop", "-o", "json"], cwd=folder)
    loop = json.loads(inspected)["id"]
    text = (REPOSITORY / "examples/automations.yaml").read_text()
    text = text.replace("NOTIFICATION_BLOCK_ID", block).replace("LOOP_DEPLOYMENT_ID", loop)
    (folder / "automations.yaml").write_text(text)
    prefect.command(*["prefect", "automation", "create", "--from-file", "automations.yaml"], cwd=folder)
    return webhook[1]


def test_a_failed_run_is_notified(prefect: Any, automated: Received) -> None:
    deployment = prefect.api.get("/deployments/name/pipeline/nightly").raise_for_status().json()["id"]
    state = {"type": "PENDING"}
    created = prefect.api.post(f"/deployments/{deployment}/create_flow_run", json={"state": state})
    run = created.raise_for_status().json()
    failed = {"type": "FAILED", "name": "Failed", "message": "stage `second` failed: clip 7"}
    prefect.api.post(f"/flow_runs/{run['id']}/set_state", json={"state": failed, "force": True}).raise_for_status()
    said = wait_until("the notification", lambda: [text for text in automated if run["name"] in text])
    assert said[0].startswith(f"mirasol: nightly Failed {run['name']}: stage `second` failed: clip 7")


def test_announced_data_start_the_loop(prefect: Any, deployed: Path, automated: Received) -> None:
    announce = "prefect event emit mirasol.new-data --resource-id mirasol.incoming"
    prefect.command(*announce.split(), cwd=deployed)
    flows = {"name": {"any_": ["loop"]}}
    run = wait_until("the run", lambda: prefect.read("/flow_runs", flows=flows))[0]
    assert run["parameters"] == {"incoming": "incoming", "settle": 0}
    wait_until("its end", lambda: prefect.run(run["id"])["state_type"] in FINAL)  # no such folder: it fails
