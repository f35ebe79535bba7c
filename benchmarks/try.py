"""A fresh clone of this commit to its first answer, by `make try` with packages from the index.

    mirasol bench try [--json FILE]

Clones the commit, makes the environment without pip's cache and reads what `mirasol try` prints. `megabytes` are those
of the clone and the environment on disk, `downloaded_megabytes` those that pip names while it fetches. The seconds
depend on the network, and on other programs: `processor_seconds` do not.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import commit, machine, rounded

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}
FETCHED = re.compile(r"Downloading \S+ \(([\d.]+) (kB|MB|GB)\)")
ANSWER = re.compile(r"\S+\.mp4 +.*\? +\S")  # a row of the table of `mirasol try`


def megabytes(folder: Path) -> float:
    """Size of all files below ``folder``."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def first_answer(clone: Path) -> dict[str, float]:
    """Run `make try` in ``clone``; returns the figures.

    Raises:
        MirasolError: it failed, or gave no answer.
    """
    python = os.environ.get("PYTHON", sys.executable)
    settings = {"CI": "1", "PIP_NO_CACHE_DIR": "1", "PIP_QUIET": "0", "PIP_PROGRESS_BAR": "off"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    began, answered, lines = time.perf_counter(), 0.0, []
    command = ["make", "try", f"PYTHON={python}", "QUIET="]
    with subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        for line in running.stdout or ():
            lines.append(line)
            if not answered and ANSWER.match(line):
                answered = time.perf_counter() - began
    if running.returncode or not answered:
        raise MirasolError(f"make try failed in {clone}:\n{''.join(lines[-20:])}")
    fetched = sum(float(size) * UNITS[unit] for size, unit in FETCHED.findall("".join(lines)))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds_to_answer": rounded(answered),
        "processor_seconds": rounded(used.ru_utime + used.ru_stime),
        "megabytes": rounded(megabytes(clone)),
        "downloaded_megabytes": rounded(fetched),
    }


def main() -> None:
    """Clone, run, print, write."""
    parser = argparse.ArgumentParser(prog="mirasol bench try", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirasol-try-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        found = first_answer(clone)
    for name, value in found.items():
        print(f"{name:<24}{value:>8g}")
    if options.json:
        write_json(options.json, {"name": "try", "commit": commit(), "machine": machine(), **found})
        print(f"-> {options.json}")


if __name__ == "__main__":
    try:
        main()
    except MirasolError as error:
        sys.exit(f"error: {error}")
