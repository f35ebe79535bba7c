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

MARK = "MIRASOL_LAUNCH"
"""Environment variable `FILE=TEXT`: the agent's folder holds FILE with TEXT, or it is not the driver's folder."""


def main() -> None:
    """Run the processes of this node."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import parse_args, run

    if wrong := other_folder(os.environ.get(MARK, "")):
        sys.exit(f"error: {wrong}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, with a warning; `training.threads` decides
    logging.disable(logging.CRITICAL)  # in this process alone
    try:
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        ended = {rank: failure.exitcode for rank, failure in error.failures.items()}
        # The agent ends the other processes by SIGTERM, and a process that loses another fails a moment later.
        killed = [rank for rank, code in ended.items() if code < 0 and code != -signal.SIGTERM]
        rank = killed[0] if killed else error.get_first_failure()[0]
        code = ended[rank]
        status = code if code > 0 else 128 - code
        if code < 0:
            print(f"process {rank} on {socket.gethostname()} was ended by signal {-code}", file=sys.stderr, flush=True)
        sys.exit(status)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except RendezvousError as error:  # another node is gone; its agent or Slurm knows why
        sys.exit(f"the agent on {socket.gethostname()} has lost the others: {error}")


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
    return (
        f"node {socket.gethostname()} does not see the project's folder ({Path.cwd()} holds no {path} of this job): "
        "put the project on a file system that all nodes share"
    )


if __name__ == "__main__":
    main()
