"""Prefect flows: when and where to run. dvc.yaml holds the graph, `mirasol.pipeline.dvc` runs it.

`python -m flows.pipeline` starts its own server (`flows.server`). Prefect reads its settings at import, so they are
set here, before any module of this folder imports it. Variables that are set already stay, and so do the settings of
a worker, which has imported Prefect before.
"""

import contextlib
import os
import sys
from pathlib import Path

if "prefect" not in sys.modules:
    if not {"PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_API_URL"} & os.environ.keys():
        _home = Path(__file__).resolve().parents[1] / "runs" / "prefect"
        with contextlib.suppress(OSError):  # Prefect makes the last folder only, and warns
            _home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(_home)
    for _key, _value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(message)s",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s %(message)s",
    }.items():
        os.environ.setdefault(_key, _value)
