"""Prefect: when and where. What a run does is in `mirasol.ops`; the graph is in dvc.yaml.

`python -m flows.pipeline` runs on a server of its own (`flows.server`). Prefect reads its settings when it is
imported, so they are set here, before any module of this folder imports it. A worker has imported
Prefect already when it gets here, and its own settings then stand; so does every variable that is set.
"""

import os
import sys
from pathlib import Path

if "prefect" not in sys.modules:
    if not {"PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_API_URL"} & os.environ.keys():
        os.environ["PREFECT_HOME"] = str(Path(__file__).resolve().parents[1] / "runs" / "prefect")
    for _key, _value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(flow_name)s | %(message)s",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s %(task_run_name)s | %(message)s",
    }.items():
        os.environ.setdefault(_key, _value)
