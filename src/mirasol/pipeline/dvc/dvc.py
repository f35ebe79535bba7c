"""DVC, typed: the stages of dvc.yaml, and the commands that the flows need. No Prefect here.

DVC keeps the graph, the staleness and the cache. Every command is DVC's command line in a separate process: its
Python API is not stable, and a stage must be killable.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.command import CommandError, capture, run
from mirasol.pipeline.dvc.lock import Lock, hold
from mirasol.pipeline.dvc.process import OnLine
from mirasol.pipeline.dvc.revisions import read_reports, text_at
from mirasol.pipeline.params.errors import nearest
from mirasol.pipeline.summary import flatten

Outcome = Literal["ran", "restored", "unchanged"]
"""`repro` ran the command (or gave changed data its version), restored the result from the run cache, or had nothing to
do."""

_CHATTER = (
    "To track the changes with git",
    "To enable auto staging",
    "\tgit add",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Generating lock file",
    "Updating lock file",
    "Data and pipelines are up to date",
)


class StageError(MirasolError):
    """A stage, or DVC around it, failed.

    Attributes:
        stage: its name.
        transient: the machine's fault (killed, DVC's lock busy, remote not reached): worth another try. The error
            that a stage reported itself is not, unless a process of several vanished or hung.
    """

    def __init__(self, message: str, *, stage: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.stage = stage
        self.transient = transient


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml; paths are relative to the file's folder."""

    name: str
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    """Everything it writes: cached outputs, metrics and plots."""
    params: tuple[str, ...] = ()
    """Keys of params.yaml; `file:key` for another file."""
    metrics: tuple[str, ...] = ()


def read_stages(path: str | Path = "dvc.yaml") -> list[Stage]:
    """The stages of a dvc.yaml, in the file's order as far as each follows its inputs' stages.

    Raises:
        MirasolError: no such file, not YAML, a stage that depends on itself, or a form that the flows do not read
            (`foreach`, `matrix`, `wdir`, `${…}`).
    """
    path = Path(path)
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file; run in the project's folder (the one with params.yaml)") from None
    except YAMLError as error:
        raise MirasolError(f"{path}: not YAML: {error}") from None
    entries = tree.get("stages") if isinstance(tree, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise MirasolError(f"{path}: expected a mapping `stages` with at least one stage")
    return _in_order([_stage(path, name, entry) for name, entry in entries.items()], path)


def _stage(path: Path, name: str, entry: Any) -> Stage:
    if not isinstance(entry, dict):
        raise MirasolError(f"{path}: stage `{name}`: expected a mapping")
    for key in ("foreach", "matrix", "wdir"):
        if key in entry:
            raise MirasolError(f"{path}: stage `{name}`: `{key}` is not read by the flows; write the stages out")

    def paths(key: str) -> tuple[str, ...]:
        return tuple(str(next(iter(i)) if isinstance(i, dict) else i) for i in entry.get(key) or ())

    params: list[str] = []
    for item in entry.get("params") or ():
        if isinstance(item, dict):
            params += [f"{file}:{key}" for file, keys in item.items() for key in keys or ("",)]
        else:
            params.append(str(item))
    metrics = paths("metrics")
    stage = Stage(name, paths("deps"), paths("outs") + metrics + paths("plots"), tuple(params), metrics)
    for text in stage.deps + stage.outs:
        if "${" in text:
            raise MirasolError(f"{path}: stage `{name}`: `{text}`: write the path out, the flows do not fill in ${{…}}")
    return stage


def _overlap(one: str, other: str) -> bool:
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a == b or a in b.parents or b in a.parents


def _parents(stage: Stage, stages: Iterable[Stage]) -> set[str]:
    """Names of the stages that write inputs of ``stage``."""
    return {s.name for s in stages if any(_overlap(dep, out) for dep in stage.deps for out in s.outs)}


def _in_order(stages: list[Stage], path: Path) -> list[Stage]:
    done: list[Stage] = []
    left = list(stages)
    while left:
        names = {s.name for s in left}
        ready = next((s for s in left if not _parents(s, stages) & names), None)
        if ready is None:
            raise MirasolError(f"{path}: these stages depend on each other in a circle: {', '.join(sorted(names))}")
        left.remove(ready)
        done.append(ready)
    return done


def select(stages: Sequence[Stage], targets: Sequence[str] | None) -> list[Stage]:
    """``targets`` and everything they depend on, in order; all stages without targets.

    Raises:
        MirasolError: a target that is no stage; the nearest name is in the message.
    """
    if not targets:
        return list(stages)
    known = {s.name: s for s in stages}
    wanted: set[str] = set()
    todo = list(targets)
    while todo:
        name = todo.pop()
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean `{near}`?" if near else ""
            raise MirasolError(f"target `{name}` is no stage of dvc.yaml ({', '.join(known)}){hint}")
        if name not in wanted:
            wanted.add(name)
            todo += _parents(known[name], stages)
    return [s for s in stages if s.name in wanted]


def downstream(stages: Sequence[Stage], names: Iterable[str]) -> set[str]:
    """Names of all stages that read, directly or through others, an output of ``names``."""
    found: set[str] = set()
    for stage in stages:  # in order, so one pass is enough
        if _parents(stage, stages) & (found | set(names)):
            found.add(stage.name)
    return found


def status(root: str | Path = ".") -> dict[str, list[str]]:
    """The stale stages and `.dvc` files, each with its reasons.

    Omits stages that become stale only when another stage runs: see `downstream`.
    """
    root = Path(root)
    _repair_lock(root)
    found = json.loads(capture(root, _dvc("status", "--json")) or "{}")
    return {name: [line for entry in entries for line in _reasons(entry)] for name, entries in found.items()}


def _reasons(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return [str(entry)]
    lines = []
    for what, paths in entry.items():
        for path, how in paths.items() if isinstance(paths, dict) else [(str(paths), "")]:
            if isinstance(how, dict):
                how = ", ".join(f"{key} {state}" for key, state in how.items())
            lines.append(f"{what}: {path} {how}".rstrip())
    return lines


def repro(
    stage: str | None = None,
    *,
    root: str | Path = ".",
    single_item: bool = True,
    lock: Lock | None = None,
    on_line: OnLine = print,
) -> Outcome:
    """`dvc repro`: bring ``stage`` up to date (all stages if ``None``), each line to ``on_line``.

    Args:
        single_item: do not run the stages that it depends on.
        lock: the workspace's lock if the caller holds it; otherwise taken for this call.

    Raises:
        StageError: it failed; the text is the stage's report in runs/<stage>/error.json, else the last lines of its
            output.
        MirasolError: the workspace is in use by another run.
    """
    root = Path(root).resolve()
    if lock is None:
        with hold(root, f"dvc repro {stage or ''}".rstrip(), say=on_line) as lock:
            return repro(stage, root=root, single_item=single_item, lock=lock, on_line=on_line)
    arguments = ["repro", *(["--single-item"] if stage and single_item else []), *([stage] if stage else [])]
    return _reproduce(root, arguments, stage or "", lock, on_line)


def exp_run(
    name: str, changes: Sequence[str], *, root: str | Path = ".", lock: Lock, on_line: OnLine = print
) -> Outcome:
    """`dvc exp run`: all stages with ``changes`` (`finetune.lr=1e-4`) to params.yaml, kept as experiment ``name``.

    Raises:
        StageError: as `repro`.
    """
    arguments = ["exp", "run", "--name", name]
    for change in changes:
        arguments += ["--set-param", change]
    return _reproduce(Path(root).resolve(), arguments, "", lock, on_line)


def check_changes(path: Path, changes: Sequence[str]) -> None:
    """Refuse ``changes`` (`finetune.lr=1e-4`) that name no key of the params file ``path``.

    Raises:
        MirasolError: every wrong change, with the nearest key.
    """
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise MirasolError(f"{path}: cannot be read as YAML: {error}") from None
    known = set(flatten(tree if isinstance(tree, dict) else {}))
    wrong = []
    for change in changes:
        key, equals, value = change.partition("=")
        near = nearest(key, known)
        if not equals or not value:
            wrong.append(f"`{change}`: expected KEY=VALUE, such as finetune.lr=5e-4")
        elif not key.startswith(("+", "~")) and key not in known:
            hint = f"did you mean `{near}`? " if near else ""
            wrong.append(f"`{change}`: {path.name} states no key `{key}`; {hint}`+{change}` adds a key")
    if wrong:
        raise MirasolError("\n".join(wrong))


def _reproduce(root: Path, arguments: list[str], stage: str, lock: Lock, on_line: OnLine) -> Outcome:
    _repair_lock(root)
    names = [] if stage else [s.name for s in read_stages(root / "dvc.yaml")]
    for old in [root / "runs" / stage / "error.json"] if stage else root.glob("runs/*/error.json"):
        old.unlink(missing_ok=True)  # any report afterwards is then of this run
    outcome: Outcome = "unchanged"
    current = stage

    def read(line: str) -> None:
        nonlocal outcome, current
        if match := re.fullmatch(r"Running stage '(.+)':|Verifying data sources in stage: '(.+)'", line):
            outcome, current = "ran", match[1] or match[2]
            if current in names:
                on_line(f"stage {names.index(current) + 1} of {len(names)}: {current}")
        elif re.fullmatch(r"Stage '.+' is cached - skipping run, checking out outputs", line):
            outcome = "ran" if outcome == "ran" else "restored"
            if not stage:
                on_line(line)
        elif not line.startswith("> "):  # the command of the stage
            on_line(line)

    try:
        run(root, _dvc(*arguments), on_line=read, lock=lock, show=_informative)
    except CommandError as error:
        raise _stage_error(root, current, error) from None
    return outcome


def _repair_lock(root: Path) -> None:
    """Remove the half-written lock file of a killed DVC: every later command would refuse it."""
    path = root / ".dvc" / "tmp" / "rwlock"
    for last in (False, True):
        try:
            json.loads(path.read_text(encoding="utf-8"))
            return
        except FileNotFoundError:
            return
        except ValueError:
            if last:
                path.unlink(missing_ok=True)
            else:
                time.sleep(0.5)  # another DVC may be writing it just now


def _informative(line: str) -> bool:
    return bool(line) and not line.startswith(_CHATTER)


def _stage_error(root: Path, stage: str, error: CommandError) -> StageError:
    report = root / "runs" / stage / "error.json"
    back = _way_back(root, stage)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        own = json.loads(report.read_text(encoding="utf-8"))
        where = f" (process {own['rank']} on {own['host']})" if own.get("processes", 1) > 1 else ""
        transient = bool(own.get("transient", False))
        return StageError(f"stage `{stage}` failed{where}: {own['error']}{back}", stage=stage, transient=transient)
    what = f"stage `{stage}`" if stage else "`dvc`"
    text = "\n".join(line for line in error.tail if not line.startswith(("Running stage '", "> "))) or str(error)
    exited = re.search(r"exited with (-?\d+)", text)
    code = int(exited[1]) if exited else error.code
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number:
        why = " (often: out of memory)" if number == 9 else ""
        said = f"{what} was ended by signal {number}{why}:\n{text}{back}"
        return StageError(said, stage=stage, transient=True)
    if "missing data 'source'" in text:
        text += (
            "\nBring the data back with `dvc checkout` or `dvc pull`; the built-in world is made again by"
            " `mirasol world --out data`"
        )
    busy = "Unable to acquire lock" in text or "is busy, it is being blocked by" in text
    return StageError(f"{what} failed:\n{text}{back}", stage=stage, transient=busy)


def _way_back(root: Path, stage: str) -> str:
    """How the last results of a stage come back: DVC deletes its outputs before it runs. Empty if none are missing."""
    try:
        lock = YAML(typ="safe").load(root / "dvc.lock")
        outs = [out["path"] for out in lock["stages"][stage]["outs"]]
    except (OSError, YAMLError, KeyError, TypeError):
        return ""
    missing = [path for path in outs if not (root / path).exists()]
    in_git = [path for path in missing if text_at(root, path, "HEAD") is not None]
    commands = ["dvc checkout " + " ".join(cached)] if (cached := [p for p in missing if p not in in_git]) else []
    commands += ["git checkout " + " ".join(in_git)] if in_git else []
    return f"\nIts last outputs come back with `{' && '.join(commands)}`" if commands else ""


def metrics(root: str | Path, stages: Iterable[Stage], rev: str | None = None) -> dict[str, Any]:
    """The stages' metrics files, as :func:`read_reports`."""
    return read_reports(root, [path for stage in stages for path in stage.metrics], rev)


def push(root: str | Path, *, on_line: OnLine = print, lock: Lock | None = None) -> None:
    """`dvc push` to the default remote.

    Raises:
        StageError: it failed; always worth another try.
    """
    try:
        call(root, "push", on_line=on_line, lock=lock)
    except CommandError as error:
        raise StageError(str(error), stage="push", transient=True) from None


def exp_fetch(root: str | Path, workspace: str | Path, name: str, *, on_line: OnLine = print) -> None:
    """Bring experiment ``name`` from another workspace into ``root``, for `dvc exp show` and `dvc exp apply`.

    Only git's part: the files are in the shared cache.
    """
    call(root, "exp", "pull", "--force", "--no-cache", str(Path(workspace).resolve()), name, on_line=on_line)


def cache_dir(root: str | Path) -> str:
    """The absolute path of the workspace's cache."""
    return str(Path(root, capture(root, _dvc("cache", "dir")).strip()).resolve())


def call(root: str | Path, *arguments: str, on_line: OnLine = print, lock: Lock | None = None) -> None:
    """`dvc ARGUMENTS…` in ``root``.

    Raises:
        CommandError: it failed.
    """
    run(root, _dvc(*arguments), on_line=on_line, lock=lock, show=_informative)


def _dvc(*arguments: str) -> list[str]:
    # -P: the workspace has folders named like modules (build, data, flows)
    return [sys.executable, "-P", "-m", "dvc", *arguments]
