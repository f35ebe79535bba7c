"""A release: the model of the current commit, if it is no worse than the released one."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import CommandError, git
from mirasol.pipeline.dvc.lock import Lock
from mirasol.pipeline.summary import flatten, number

TAGS = "model-*"
BUNDLE = Path("build", "bundle")


@dataclass(frozen=True)
class Verdict:
    """One gate: a metric of the candidate and of the released model. Higher is better."""

    metric: str
    value: float
    released: float | None
    allowed: float
    """How far the value may fall below the released one."""

    @property
    def passed(self) -> bool:
        """Whether this metric allows the release; the first release always passes."""
        return self.released is None or self.value >= self.released - self.allowed

    def __str__(self) -> str:
        before = "no release before" if self.released is None else f"released {number(self.released)}"
        return f"{self.metric}: {number(self.value)} ({before}, may fall by {number(self.allowed)})"


def released_tag(root: str | Path) -> str | None:
    """The newest `model-…` tag among the ancestors of the current commit, ``None`` before the first release."""
    with contextlib.suppress(CommandError):
        return git(root, "describe", "--tags", "--abbrev=0", f"--match={TAGS}")
    return None


def judge(root: str | Path, gates: Mapping[str, float]) -> list[Verdict]:
    """Compare the metrics in the workspace with the released model's.

    Args:
        gates: `reports/FILE.json:dotted.key` -> how far it may fall.

    Raises:
        MirasolError: a metric is missing or not a number.
    """
    root = Path(root)
    stages = dvc.read_stages(root / "dvc.yaml")
    tag = released_tag(root)
    now = dvc.metrics(root, stages)
    before = dvc.metrics(root, stages, rev=tag) if tag else {}
    verdicts = []
    for gate, allowed in gates.items():
        value = _lookup(now, gate)
        if value is None:
            raise MirasolError(f"gate `{gate}`: no such number in the workspace; expected reports/FILE.json:dotted.key")
        verdicts.append(Verdict(gate, value, _lookup(before, gate), allowed))
    return verdicts


def _lookup(metrics: Mapping[str, Any], gate: str) -> float | None:
    path, _, key = gate.rpartition(":")
    value = flatten(metrics.get(path, {})).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def check_state(root: str | Path) -> None:
    """Require that the commit holds everything that made the model.

    Raises:
        MirasolError: tracked files are changed, or stages are stale.
    """
    changed = git(root, "status", "--porcelain", "--untracked-files=no")
    untracked = git(root, "ls-files", "--others", "--exclude-standard", "--", "dvc.lock", "reports", "*.dvc")
    files = [line[3:] for line in changed.splitlines()] + untracked.splitlines()
    if files:
        raise MirasolError(f"not committed: {', '.join(files[:10])}. Commit them (git add, git commit), then release")
    stale = dvc.status(root)
    if stale:
        raise MirasolError(f"not up to date: {', '.join(stale)}. Run the pipeline, commit its results, then release")


def publish(
    root: str | Path,
    to: str | Path,
    verdicts: Sequence[Verdict],
    *,
    lock: Lock,
    push: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Tag the commit `model-N`, and copy the bundle and a `release.json` to ``to``/model-N.

    The folder appears complete and together with the tag, or not at all.

    Args:
        push: send the DVC cache to its default remote, and the tag to `origin`.

    Returns:
        The tag.

    Raises:
        MirasolError: a gate failed, the bundle is missing, or it cannot be written or pushed.
    """
    root = Path(root)
    failed = [v for v in verdicts if not v.passed]
    if failed:
        raise MirasolError("worse than the released model, not released:\n" + "\n".join(map(str, failed)))
    bundle = root / BUNDLE
    if not bundle.is_dir():
        raise MirasolError(f"{bundle}: no bundle to release; run the pipeline's `export`")
    taken = [int(m[1]) for t in git(root, "tag", "--list", TAGS).splitlines() if (m := re.fullmatch(r"model-(\d+)", t))]
    tag = f"model-{max(taken, default=0) + 1}"
    target = root / to / tag
    part = target.with_name(f".{tag}.part")
    if push:
        dvc.push(root, on_line=say, lock=lock)
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(bundle, part)
        facts = {v.metric: {"value": v.value, "released": v.released} for v in verdicts}
        write_json(part / "release.json", {"tag": tag, "commit": git(root, "rev-parse", "HEAD"), "metrics": facts})
        git(root, "tag", "--annotate", tag, "--message", "\n".join([f"Release {tag}", "", *map(str, verdicts)]))
        part.rename(target)
    except OSError as error:
        with contextlib.suppress(CommandError):
            git(root, "tag", "--delete", tag)
        raise MirasolError(f"cannot write {target}: {error}; nothing was released") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if push:
        git(root, "push", "--quiet", "origin", tag)
    say(f"released {tag}: {target}")
    return tag
