"""Everything that needs a GPU, in at most eight minutes: kernels, log-mel, host syncs, compilation, speed, memory.

    make gpu-check                                       a GPU whose Python has torch, pytorch-lightning and numpy
    PYTHONPATH=src python benchmarks/gpu_check.py [--json FILE] [--only SECTION ...] [--cpu]

Each section runs in a process with its share of the time, and the file is written after each: what one breaks or
loses is in its entry, and the rest goes on. A second run of the same code repeats only what did not pass.
Kernels that the first run compiled are kept by torch, so that a second one gets further in its time.
Without a GPU, or with --cpu, tiny sizes show that it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from common import arguments, commit, machine
from gpu_sections import SECTIONS, Setting

from mirasol.core.code import code_hash
from mirasol.core.files import write_json

CODE = ("media/log_mel.py", "model", "training")  # of the package; and all of benchmarks/
TAIL = 3000  # characters of a failed section's output that are kept


def main() -> None:
    """Run the sections that have not passed, each in a process; exit with 1 if one fails."""
    parser = arguments(__doc__, rounds=2)
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), help="these sections alone, again if they passed")
    parser.add_argument("--section", choices=list(SECTIONS), help="run it in this process")
    options = parser.parse_args()
    path = options.json or Path("runs/gpu_check.json")
    cpu = options.cpu or options.quick or not torch.cuda.is_available()
    if options.section:
        run_section(options.section, Setting(torch.device("cpu" if cpu else "cuda"), options.rounds), path)
        return
    result = earlier(path, cpu)
    for name, (seconds, _) in SECTIONS.items():
        if name not in (options.only or SECTIONS) or (not options.only and result["figures"].get(name, {}).get("ok")):
            continue
        seconds *= 10 if cpu else 1
        print(f"[gpu-check] {name}, at most {seconds} s", flush=True)
        found = in_a_process(name, seconds, [*(["--cpu"] if cpu else []), "--rounds", str(options.rounds)])
        ratios = found.pop("ratios", {})
        result["figures"][name], result["ratios"] = found, result["ratios"] | ratios
        write_json(path, result)
        print(f"[gpu-check] {name}: {'ok' if found['ok'] else 'FAILED'} in {found['seconds']} s", flush=True)
    failed = [name for name, found in result["figures"].items() if not found["ok"]]
    print(f"-> {path}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    raise SystemExit(1 if failed else 0)


def earlier(path: Path, cpu: bool) -> dict[str, Any]:
    """The result in ``path``, if an earlier run of this code on such a machine wrote it; an empty one otherwise."""
    here = {
        "name": "gpu_check",
        "commit": commit(),
        "code": [code_hash(CODE), code_hash(("",), Path(__file__).parent)],
        "machine": machine() | {"device": "cpu" if cpu else "cuda"},
    }
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    same = isinstance(found, dict) and all(found.get(key) == value for key, value in here.items())
    return found if same else here | {"ratios": {}, "figures": {}}


def in_a_process(name: str, seconds: float, options: list[str]) -> dict[str, Any]:
    """The result of one section, with ``ok``, ``seconds`` and, where it failed, ``error``."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "section.json"), Path(folder, "log")
        command = [sys.executable, __file__, "--section", name, "--json", str(path), *options]
        begun = time.monotonic()
        with log.open("wb") as file:
            child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                ending = f"exit status {child.wait(seconds)}"
            except subprocess.TimeoutExpired:
                ending = f"not done after {seconds} s"
                child.terminate()  # it writes what it has
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(3)
            finally:
                stop(child)
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"ok": False}
        if ending != "exit status 0":
            found |= {"ok": False, "error": found.get("error", ending)}
        if not found["ok"]:
            found["log"] = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        return found | {"seconds": round(time.monotonic() - begun, 1)}


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a section and all that it started, such as the compiler's workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def out_of_time(*_: object) -> None:
    raise TimeoutError("its time was up")


def run_section(name: str, setting: Setting, path: Path) -> None:
    """Run one section in this process and write its result, or its error."""
    partial: dict[str, Any] = {}
    signal.signal(signal.SIGTERM, out_of_time)
    try:
        SECTIONS[name][1](setting, partial)
        write_json(path, {"ok": True} | partial)
    except Exception as error:
        traceback.print_exc()
        write_json(path, partial | {"ok": False, "error": f"{type(error).__name__}: {error}"[:TAIL]})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
