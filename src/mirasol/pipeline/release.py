"""A release: the model of the current commit, if it is no worse than the released one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import CommandError, git
from mirasol.pipeline.dvc.lock import Lock
from mirasol.pipeline.dvc.revisions import read_reports
from mirasol.pipeline.summary import flatten, number
from mirasol.runtime.contract import CONTRACT_FILE
from mirasol.runtime.releases import NAME, RELEASE_FILE, Registry, bundle_hash

TAGS = "model-*"
BUNDLE = Path("build", "bundle")
SEEDS = "reports/seeds.json"


class GateError(MirasolError):
    """The model is worse than the released one."""


@dataclass(frozen=True)
class Verdict:
    """One gate: a metric of the candidate and of the released model. Higher is better."""

    metric: str
    value: float
    released: float | None
    allowed: float
    """How far the value may fall below the released one."""
    seeds: int = 1
    """Seeds of reports/seeds.json over which ``allowed`` was widened to their spread; 1: the spread is not known."""

    @property
    def passed(self) -> bool:
        """Whether this metric allows the release; the first release always passes."""
        return self.released is None or self.value >= self.released - self.allowed

    def __str__(self) -> str:
        before = "no release before" if self.released is None else f"released {number(self.released)}"
        spread = "one seed, spread not known" if self.seeds < 2 else f"spread over {self.seeds} seeds counted"
        return f"{self.metric}: {number(self.value)} ({before}, may fall by {number(self.allowed)}; {spread})"


def released_tag(root: str | Path, to: str | Path | None = None) -> str | None:
    """The tag of the current release in the registry ``to``, if this repository has it.

    Otherwise the newest `model-…` tag among the ancestors of the current commit; ``None`` before the first release.
    """
    current = Registry(Path(root) / to).current() if to else None
    if current and git(root, "tag", "--list", current.name):
        return current.name
    with contextlib.suppress(CommandError):
        return git(root, "describe", "--tags", "--abbrev=0", f"--match={TAGS}")
    return None


def judge(root: str | Path, gates: Mapping[str, float], to: str | Path | None = None) -> list[Verdict]:
    """Compare the figures in the workspace with the released model's.

    A fall within the spread over seeds in reports/seeds.json (`mirasol bench seeds --json`) is no regression.

    Args:
        gates: `reports/FILE.json:dotted.key` -> how far it may fall; further if seeds differ by more.
        to: the registry whose current release is compared with, see :func:`released_tag`.

    Raises:
        MirasolError: a figure is missing or not a number.
    """
    root = Path(root)
    paths = {gate.rpartition(":")[0] for gate in gates}
    tag = released_tag(root, to)
    now = read_reports(root, paths)
    before = read_reports(root, paths, rev=tag) if tag else {}
    over_seeds = read_reports(root, [SEEDS]).get(SEEDS, {})
    verdicts = []
    for gate, allowed in gates.items():
        value = _lookup(now, gate)
        if value is None:
            raise MirasolError(f"gate `{gate}`: no such number in the workspace; expected reports/FILE.json:dotted.key")
        values = flatten(over_seeds).get(gate.rpartition(":")[2].removesuffix(".exact_match") + ".seeds") or [value]
        verdicts.append(
            Verdict(gate, value, _lookup(before, gate), max(allowed, max(values) - min(values)), len(values))
        )
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


def results(root: str | Path) -> list[str]:
    """Paths that an import and the stages write: data.dvc, dvc.lock, and the stages' outputs."""
    return ["data.dvc", "dvc.lock", *(out for stage in dvc.read_stages(Path(root) / "dvc.yaml") for out in stage.outs)]


def check_sources(root: str | Path) -> None:
    """Require that the commit holds all code and parameters; :func:`results` may differ from it.

    Raises:
        MirasolError: other tracked files are changed.
    """
    others = [f":(exclude){path}" for path in results(root)]
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *others)
    if changed:
        files = ", ".join(line[3:] for line in changed.splitlines()[:10])
        raise MirasolError(f"not committed: {files}. Commit them (git commit), so that a release's commit has its code")


def commit_results(root: str | Path, message: str) -> bool:
    """Commit those of :func:`results` that git tracks or does not ignore, and nothing else; whether any had changed.

    Raises:
        MirasolError: git refuses; its text says why.
    """
    paths = results(root)
    untracked = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *paths).split("\0")
    if any(untracked):
        git(root, "add", "--", *filter(None, untracked))
    changed = [
        name for name in git(root, "diff", "-z", "--name-only", "--relative", "HEAD", "--", *paths).split("\0") if name
    ]
    if changed:
        git(root, "commit", "--quiet", "--message", message, "--only", "--", *changed)
    return bool(changed)


def released_as(root: str | Path, to: str | Path) -> str | None:
    """The release in the registry ``to`` with the workspace's bundle; ``None`` if it is not released."""
    bundle, registry = Path(root) / BUNDLE, Registry(Path(root) / to)
    known = {release.bundle: release.name for release in registry.releases()}
    return known.get(bundle_hash(bundle)) if (bundle / CONTRACT_FILE).is_file() else None


def publish(
    root: str | Path,
    to: str | Path,
    verdicts: Sequence[Verdict],
    *,
    lock: Lock,
    push: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Tag the commit `model-N`, copy the bundle and a `release.json` to the registry ``to``, and make it current.

    The folder appears complete and together with the tag, or not at all. A commit with an equal bundle is released
    once: again, nothing changes, and a tag whose folder is gone gets it back.

    Args:
        to: the folder of the registry (:mod:`mirasol.runtime.releases`), relative to ``root``.
        push: send the DVC cache to its default remote, and the tag to `origin`.

    Returns:
        The tag.

    Raises:
        GateError: a gate failed.
        MirasolError: the bundle is missing, or it cannot be written or pushed.
    """
    root, registry = Path(root), Registry(Path(root) / to)
    failed = [v for v in verdicts if not v.passed]
    if failed:
        raise GateError("worse than the released model, not released:\n" + "\n".join(map(str, failed)))
    bundle = root / BUNDLE
    if not (bundle / CONTRACT_FILE).is_file():
        raise MirasolError(f"{bundle}: no bundle to release; run the pipeline's `export`")
    commit, identity = git(root, "rev-parse", "HEAD"), bundle_hash(bundle)
    with registry.changing():
        for earlier in registry.releases():
            if (earlier.commit, earlier.bundle) == (commit, identity):
                say(f"this commit and bundle are released already, as {earlier.name}: {earlier.folder}")
                return earlier.name
        if push:
            dvc.push(root, on_line=say, lock=lock)
        known = _tag_of(root, identity)
        tag = known or _next_tag(root, registry)
        facts = {v.metric: {"value": v.value, "released": v.released} for v in verdicts}
        date = datetime.now().astimezone().isoformat(timespec="seconds")
        record = {"tag": tag, "commit": commit, "bundle": identity, "date": date, "metrics": facts}
        message = "\n".join([f"Release {tag}", "", *map(str, verdicts), f"bundle {identity}"])
        _place(root, registry.folder / tag, record, None if known else message)
        registry.append(tag)
    if push:
        git(root, "push", "--quiet", "origin", tag)
    say(f"released {tag}: {registry.folder / tag}")
    return tag


def _tag_of(root: Path, identity: str) -> str | None:
    """The release tag of the current commit that names this bundle."""
    for tag in git(root, "tag", "--points-at", "HEAD", "--list", TAGS).splitlines():
        if identity in git(root, "tag", "--list", "--format=%(contents)", tag):
            return tag
    return None


def _next_tag(root: Path, registry: Registry) -> str:
    names = [*git(root, "tag", "--list", TAGS).splitlines(), *(release.name for release in registry.releases())]
    taken = [int(found[1]) for name in names if (found := NAME.fullmatch(name))]
    return f"model-{max(taken, default=0) + 1}"


def _place(root: Path, target: Path, record: Mapping[str, Any], message: str | None) -> None:
    """Copy the bundle to ``target`` and make its tag, unless ``message`` is ``None``; both or neither."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(root / BUNDLE, part)
        write_json(part / RELEASE_FILE, record)
        if message is not None:
            git(root, "tag", "--annotate", target.name, "--message", message)
        part.rename(target)
    except OSError as error:
        if message is not None:
            with contextlib.suppress(CommandError):
                git(root, "tag", "--delete", target.name)
        raise MirasolError(f"cannot write {target}: {error}; nothing was released") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
