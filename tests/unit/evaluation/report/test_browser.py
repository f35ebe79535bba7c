"""The report in a browser: no error, no scrolling sideways and no request, on a phone and on a desk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.reporting import finish, looked_rows, write_benchmarks

from mirasol.evaluation.report.page import write_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=2000",
)
# Written by the page itself: wider than the window means that a phone would scroll sideways, an entry that is no
# data: address was asked for, a violation was asked for and refused.
PROBE = """<script>
const seen = { errors: [], refused: [] };
addEventListener("error", (e) => seen.errors.push(e.message));
addEventListener("securitypolicyviolation", (e) => seen.refused.push(e.blockedURI));
addEventListener("load", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  seen.width = document.documentElement.scrollWidth;
  const names = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.requests = names.filter((name) => !name.startsWith("data:"));
  document.title = JSON.stringify(seen);
});</script>"""


@pytest.fixture
def page(project: Path) -> Path:
    """A page with all that a report can hold."""
    return write_report(write_benchmarks(finish(project, looked_rows(project))), project / "build/report")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_errors_requests_or_scrolling_sideways(
    page: Path, tmp_path: Path, width: int
) -> None:
    # Headless windows are at least 500 px wide; a frame can be as narrow as a phone.
    page.write_text(page.read_text(encoding="utf-8").replace("<style>", PROBE + "<style>", 1), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe src="{page.as_uri()}" style="width:{width}px;height:800px;border:0" '
        "onload=\"document.title=this.contentDocument?this.contentDocument.title:'no access'\"></iframe>"
    )
    command = [str(CHROMIUM), *FLAGS, "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={max(width, 500) + 40},900", "--dump-dom", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None, dom[:500]
    assert json.loads(found[1]) == {"errors": [], "refused": [], "requests": [], "width": width}
