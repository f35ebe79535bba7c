"""Workspaces: separate folders for other data, other parameters or an experiment, with one shared cache.

Two pipelines in one folder take turns; two workspaces run at the same time and share computed results.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import CommandError, git, mirasol
from mirasol.pipeline.dvc.lock import hold
from mirasol.pipeline.launch.config import CLUSTER
from mirasol.pipeline.own import ANNOTATIONS, begin_from, find_start, write_proposal
from mirasol.pipeline.params.load import of_set
from mirasol.tasks.registry import ADAPTERS

WORKSPACES = Path("runs", "workspaces")
WITHOUT_ANNOTATIONS = ("drone", "fsdd")
_BASE = "refs/mirasol/base"  # the commit of the project that the workspace started from
_TIP = "refs/mirasol/tip"  # our own commit on top of it


@dataclass(frozen=True)
class Import:
    """A workspace's own data: the arguments of `mirasol data import`.

    Attributes:
        media: a folder of media; the project's own data if ``None``.
        adapter: the reader of ``media``, a NAME of `mirasol data import`.
        annotations: for `generic` a .csv or .jsonl file (default: annotations.csv or annotations.jsonl in ``media``),
            for a published set the folder with its own files (default: ``media``); `drone` and `fsdd` have none.
        options: further ones of the import, such as ``--skip-missing``.
        unlabelled: a folder of media without annotations, next to ``media`` or, for `pretrain` alone, without them.
    """

    media: str | Path | None = None
    adapter: str = "generic"
    annotations: str | Path | None = None
    options: Sequence[str] = ()
    unlabelled: str | Path | None = None

    def command(self) -> list[str]:
        """The words after `mirasol`; empty for the project's own data.

        Raises:
            MirasolError: a file is missing, the adapter unknown, or the options cannot be combined.
        """
        bare: list[str] = []
        if self.unlabelled is not None:
            if self.adapter != "generic":
                raise MirasolError(
                    f"--unlabelled {self.unlabelled}: goes with --adapter generic, not {self.adapter}: in its folder "
                    f"run `mirasol data import generic --unlabelled {self.unlabelled} --append`"
                )
            bare = ["--unlabelled", str(_existing(self.unlabelled, "--unlabelled"))]
        if self.media is None and bare and self.annotations is None:
            return ["data", "import", "generic", *bare, "--out", "data", *self.options]
        if self.media is None:
            if self.annotations is not None or self.options:
                raise MirasolError("--annotations and options of the import go with --data, the folder with the media")
            return []
        media = _existing(self.media, "--data")
        listed = _annotations(media, self.adapter, self.annotations)
        return ["data", "import", self.adapter, *listed, "--media", str(media), *bare, "--out", "data", *self.options]


def make_workspace(
    name: str,
    *,
    root: str | Path = ".",
    params: str | Path | None = None,
    data: Import = Import(),
    fill: Callable[[Path], None] | None = None,
    start: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make runs/workspaces/``name``, or bring it up to date: a clone of the project's HEAD that shares its cache.

    ``params`` becomes its params.yaml and ``data`` its data set, both committed. Called again it keeps the
    computed results, and follows the project's HEAD unless the workspace has separate commits or edits.

    Args:
        root: the project's folder.
        params: a complete params file (recipes/*.yaml), of whose `sets` the adapter's counts. ``None``: a proposal for
            ``data``, or without them the project's committed file.
        fill: puts data and pipeline into the folder, and its new files into git's index, in place of ``data``.
        start: trained weights to start from (:func:`mirasol.pipeline.own.find_start`).

    Returns:
        The workspace's folder.

    Raises:
        MirasolError: the project has no commit, the name is no folder name, a file is missing, or the data cannot
            be imported. The next call continues.
    """
    root = Path(root).resolve()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise MirasolError(f"workspace name `{name}`: use letters, digits, `.`, `_` and `-`, a letter or digit first")
    recipe = _existing(params, "--params") if params is not None else None
    words = data.command()
    begin = find_start(start) if start is not None else None
    head = _head(root, say)
    folder = root / WORKSPACES / name
    if not (folder / ".git").exists():
        _clone(root, folder)
    with hold(folder, "mirasol workspace", say=say):
        results = _results(folder) if recipe or words or fill else {}
        new = _follow(folder, root, head, say)
        if not (folder / CLUSTER).exists() and (root / CLUSTER).exists():
            (folder / CLUSTER).unlink(missing_ok=True)  # a link of a project that was moved
            (folder / CLUSTER).symlink_to(os.path.relpath(root / CLUSTER, folder))
        if new and (recipe or words or fill):
            # the project's results are of its own data and parameters; those computed here stay
            git(folder, "rm", "-q", "-f", "--ignore-unmatch", "dvc.lock", "reports/*.json")
            for path, content in results.items():
                with atomic_write(path) as file:
                    file.write(content)
        if recipe:
            with atomic_write(folder / "params.yaml", "w") as file:
                file.write(of_set(recipe, data.adapter))
            git(folder, "add", "params.yaml")
        if words:
            mirasol(folder, *words, on_line=say)
            dvc.call(folder, "add", "data", on_line=say)
            git(folder, "add", "data.dvc")
            if recipe is None:
                write_proposal(folder, git(folder, "show", f"{_BASE}:params.yaml"), say, begin)
        elif fill:
            fill(folder)
        elif (folder / "data.dvc").exists():
            _checkout(folder, say)
        if begin is not None:
            begin_from(folder, begin, say)
        if git(folder, "status", "--porcelain", "--untracked-files=no"):
            _commit(folder, f"Workspace {name}")
        git(folder, "update-ref", _TIP, "HEAD")
    return folder


def _results(folder: Path) -> dict[Path, bytes]:
    """dvc.lock and the reports that were computed in this workspace; none in one without a first commit of ours."""
    try:
        git(folder, "rev-parse", "--verify", "--quiet", _TIP)
    except CommandError:
        return {}
    paths = [folder / "dvc.lock", *(folder / "reports").glob("*.json")]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def _existing(path: str | Path, option: str) -> Path:
    found = Path(path).expanduser().resolve()
    if not found.exists():
        raise MirasolError(f"{option} {path}: no such file or folder")
    return found


def _annotations(media: Path, adapter: str, named: str | Path | None) -> list[str]:
    """The option that names the annotations; none for sets without."""
    if adapter in WITHOUT_ANNOTATIONS:
        if named is not None:
            raise MirasolError(f"--annotations {named}: {adapter} is read from the names of its files, it has none")
        return []
    if adapter != "generic" and adapter not in ADAPTERS:
        known = ", ".join(["generic", *WITHOUT_ANNOTATIONS, *ADAPTERS])
        raise MirasolError(f"--adapter {adapter}: expected one of {known}")
    if named is not None:
        return ["--annotations", str(_existing(named, "--annotations"))]
    if adapter in ADAPTERS:
        return ["--annotations", str(media)]
    found = [media / name for name in ANNOTATIONS if (media / name).is_file()]
    if len(found) != 1:
        what = "has both" if found else "has neither"
        raise MirasolError(
            f"{media} {what} {' and '.join(ANNOTATIONS)}: one of them must list the media next to it, with the columns "
            "media, start, end, prompt, answers, split, group; or name the file with --annotations. `mirasol label` "
            f"makes one; media without any teach pretrain alone: `mirasol workspace NAME --unlabelled {media}`, then "
            "`mirasol run pretrain --workspace runs/workspaces/NAME`"
        )
    return ["--annotations", str(found[0])]


def _head(root: Path, say: Callable[[str], None]) -> str:
    try:
        head = git(root, "rev-parse", "--verify", "HEAD^{commit}")
        changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", "src", "flows", "dvc.yaml")
    except CommandError as error:
        raise MirasolError(f"{root} is no git repository with a commit, and a workspace is a clone: {error}") from None
    if changed:
        files = ", ".join(line[3:] for line in changed.splitlines()[:5])
        say(f"note: changes that are not committed stay out of the workspace: {files}")
    return head


def _clone(root: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        git(root, "clone", "--quiet", "--local", "--no-checkout", str(root), str(part))
        (part / ".dvc").mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the project's remotes and credentials, if any
            shutil.copyfile(root / ".dvc" / "config.local", part / ".dvc" / "config.local")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _follow(folder: Path, root: Path, head: str, say: Callable[[str], None]) -> bool:
    """Check out the project's ``head``, unless the workspace has its own work; returns whether the base is new."""
    refs = {}
    for name in (_BASE, _TIP):
        with contextlib.suppress(CommandError):
            refs[name] = git(folder, "rev-parse", "--verify", "--quiet", name)
    if refs.get(_BASE) == head:
        return False
    if _TIP in refs:
        listed = [line[3:] for line in git(folder, "status", "--porcelain", "--untracked-files=no").splitlines()]
        edited = [path for path in listed if path != "dvc.lock" and not path.startswith("reports/")]
        if edited or git(folder, "rev-parse", "HEAD") != refs[_TIP]:
            what = ", ".join(edited[:5]) or "commits"
            say(f"note: {folder} has work of its own ({what}): it stays on {refs[_BASE][:10]}, not on {head[:10]}")
            return False
    git(folder, "fetch", "--quiet", str(root), "HEAD")
    git(folder, "checkout", "--quiet", "--force", "-B", "workspace", head)
    dvc.call(folder, "cache", "dir", "--local", dvc.cache_dir(root), on_line=say)
    dvc.call(folder, "config", "--local", "cache.type", "reflink,hardlink,copy", on_line=say)
    git(folder, "update-ref", _BASE, head)
    return True


def _checkout(folder: Path, say: Callable[[str], None]) -> None:
    try:
        dvc.call(folder, "checkout", "data.dvc", on_line=say)
    except CommandError:
        dvc.call(folder, "pull", "data.dvc", on_line=say)


def _commit(folder: Path, message: str) -> None:
    identity: list[str] = []
    for key, value in (("user.name", "mirasol"), ("user.email", "mirasol@localhost")):
        try:
            git(folder, "config", key)
        except CommandError:
            identity += ["-c", f"{key}={value}"]
    git(folder, *identity, "commit", "--quiet", "--no-verify", "--all", "--message", message)
