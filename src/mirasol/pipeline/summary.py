"""The summary of a run: its stages, and its metrics next to the last commit's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage in a run."""

    name: str
    outcome: str
    seconds: float


def why(reasons: Sequence[str], shown: int = 4) -> str:
    """The reasons that `dvc.status` gives for a stale stage, as one line.

    Leaves out inputs that did not exist when the run began: the stages before have written them since.
    """
    if any(reason.endswith("params.yaml new") for reason in reasons):
        return "runs for the first time"
    words = []
    for reason in reasons:
        kind, _, text = reason.partition(": ")
        thing, _, state = text.rpartition(" ")
        if kind == "changed outs" and (state == "deleted" or text.endswith(" not in cache")):
            words.append(f"no {thing.removesuffix(' not in')} yet")
        elif kind == "changed deps" and state == "modified":
            words.append(f"{thing.removeprefix('params.yaml ')} changed")
        elif not (kind == "changed deps" and state == "deleted"):
            words.append(text or reason)
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + more or "a stage before it ran"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def number(value: Any) -> str:
    """A metric's value for a reader: four significant digits, intervals as `low to high`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return f"{value[0]:.4g} to {value[1]:.4g}"
    if isinstance(value, list):
        return f"{len(value)} entries"
    return "" if value is None else str(value)


def markdown(
    stages: Iterable[StageResult], metrics: Mapping[str, Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]
) -> str:
    """A run as markdown: a table of stages, then one of metrics per file, next to the last commit's."""
    lines = ["## Stages", "", "| stage | outcome | seconds |", "| --- | --- | ---: |"]
    lines += [f"| {s.name} | {s.outcome} | {s.seconds:.1f} |" for s in stages]
    for path, values in metrics.items():
        old = flatten(before.get(path, {}))
        lines += ["", f"## {path}", "", "| metric | now | last commit |", "| --- | ---: | ---: |"]
        for key, value in flatten(values).items():
            cells = (key, number(value), number(old.get(key)))
            lines.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
    return "\n".join(lines) + "\n"
