"""torchrun as a program of ours: `python -m mirasol.pipeline.launch.agent TORCHRUN'S ARGUMENTS`.

It exits with the status of the process that failed first, 128 + N for one that died of signal N, where torchrun exits
with 1; and it says which process that was in one line, where torchrun prints a page.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from mirasol.data.storage import RUNS
from mirasol.pipeline.launch.limits import ENDS, PATIENT

MARK = "MIRASOL_LAUNCH"
"""Environment variable `FILE=TEXT`: the agent's folder holds FILE with TEXT, or it is not the driver's folder."""


def main() -> None:
    """Run the processes of this node."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost connection is pages of a stack in C++
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import parse_args, run

    if wrong := other_folder(os.environ.get(MARK, "")):
        sys.exit(f"error: {wrong}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, with a warning; `training.threads` decides
    logging.disable(logging.CRITICAL)  # in this process alone
    ours = _bound_ends()
    try:
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        # The agent itself ends those that are left, and a process that loses another fails a moment later.
        ended = {rank: one.exitcode for rank, one in error.failures.items() if one.pid not in ours}
        killed = [rank for rank, code in ended.items() if code < 0 and code != -signal.SIGTERM]
        rank, failure = error.get_first_failure()
        rank = killed[0] if killed else rank if rank in ended else next(iter(ended), rank)
        code = ended.get(rank, failure.exitcode)
        status = code if code > 0 else 128 - code
        if code < 0:
            print(f"process {rank} on {socket.gethostname()} was ended by signal {-code}", file=sys.stderr, flush=True)
        sys.exit(status)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except RendezvousError as error:  # another node is gone; its agent or Slurm knows why
        sys.exit(f"the agent on {socket.gethostname()} has lost the others: {error}")


def _bound_ends() -> set[int]:
    """After a failure give the other processes ``ENDS``, on SIGTERM ``PATIENT``, where torch has 30 seconds for both.

    A stuck process must not hold the run up, and one that saves must not be killed.

    Returns:
        The processes that the agent has ended, as they come.
    """
    from torch.distributed.elastic.multiprocessing.api import PContext, SignalException

    close, ours = PContext.close, set[int]()

    def bounded(self: Any, death_sig: signal.Signals | None = None, timeout: float = 0.0) -> None:
        ours.update(handler.proc.pid for handler in self.subprocess_handlers.values() if handler.proc.poll() is None)
        told = isinstance(sys.exc_info()[1], SignalException)
        close(self, death_sig, PATIENT if told else ENDS)  # type: ignore[arg-type]

    PContext.close = bounded  # type: ignore[method-assign]
    return ours


def other_folder(mark: str) -> str:
    """The error of an agent whose folder is not the one of the driver, which left ``mark`` there; empty if it is."""
    path, _, text = mark.partition("=")
    if not path:
        return ""
    try:
        found = Path(path).read_text(encoding="utf-8")
    except OSError:
        found = ""
    if found == text:
        return ""
    if not os.environ.get(RUNS):
        return (
            f"node {socket.gethostname()} does not see the project's folder ({Path.cwd()} holds no {path} of this "
            "job): put the project on a file system that all nodes share, or set `storage` in cluster.yaml"
        )
    if not Path("params.yaml").is_file():
        return f"node {socket.gethostname()} has no project in {Path.cwd()}: clone the same commit there"
    return ""


if __name__ == "__main__":
    main()
