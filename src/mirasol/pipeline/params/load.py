"""params.yaml -> :class:`Params`, or every problem of the file at once."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.model.config import RENAMED
from mirasol.pipeline.params.checks import CHECKS, PHASES
from mirasol.pipeline.params.errors import SEE, ParamsError, Problem, nearest, show
from mirasol.pipeline.params.schema import OWN, SETS, SHARED, Key, Params, Section, sections
from mirasol.tasks.registry import ADAPTERS

MOVED = ("devices", "nodes")  # keys of `training` in older files, now of cluster.yaml


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read, resolve and check a params file (YAML 1.2, as DVC reads it: ``1e-3`` is a number, ``on`` is text).

    A phase takes from the section `phases` the keys that it does not state itself.

    Raises:
        ParamsError: the file is not valid; the message names every problem with its line, dotted path,
            the value got, the values allowed, and for a misspelt key the nearest name.
        MirasolError: the file cannot be read.
    """
    return read_params(path).params


@dataclass(frozen=True)
class Resolved:
    """A valid params file, and where it states each value."""

    params: Params
    stated: dict[str, str]  # `section.key` of params -> the path in the file
    sets: dict[str, dict[str, Any]]  # data set -> the keys of `finetune` that it changes


def read_params(path: str | Path) -> Resolved:
    """As :func:`load_params`, with the places of the values and the section `sets`."""
    path = Path(path)
    reader = _Reader(parse(path))
    values = reader.read()
    if reader.problems:
        raise ParamsError(path, reader.problems)
    params = Params(**{name: known.kind(**values[name]) for name, known in sections().items() if name != SHARED})
    return Resolved(params, {key: written for key, (_, written) in reader.stated.items()}, reader.sets)


def of_set(path: Path, name: str) -> str:
    """The text of a params file for one data set: without `sets`, its entry ``name`` written into `finetune`.

    Raises:
        ParamsError: the file is not valid.
    """
    from ruamel.yaml import YAML

    document = parse(path)
    if SETS not in document:
        return path.read_text(encoding="utf-8")
    finetune: Any = document["finetune"]
    for key, value in read_params(path).sets.get(name, {}).items():
        if key in finetune:
            finetune[key] = value
        else:  # behind the last key the comment of the next section would come first
            finetune.insert(0, key, value)
    del document[SETS]
    text = io.StringIO()
    yaml = YAML(typ="rt")
    yaml.width = 120
    yaml.dump(document, text)
    return text.getvalue()


def parse(path: Path, expected: str = "", see: str = SEE, *, empty: bool = False) -> dict[str, Any]:
    """The file as a mapping that remembers its lines (ruamel's round-trip loader).

    Raises:
        ParamsError: it is not YAML, or no mapping but ``expected``, or nothing unless ``empty``; the last line
            says what to ``see``.
        MirasolError: it cannot be read.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MirasolError(
            f"{path} does not exist: run in the project's folder (the one with params.yaml), or name the file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MirasolError(f"{path} cannot be read as a text file: {error}") from error
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join((error.problem or "not valid YAML").split("\n")[0].split())
        where = mark.line + 1 if mark else 1
        raise ParamsError(path, [Problem(where, "", f"not valid YAML: {reason}")], see) from error
    except YAMLError as error:  # a character that YAML forbids: no mark
        raise ParamsError(path, [Problem(1, "", f"not valid YAML: {' '.join(str(error).split())}")], see) from error
    if document is None and empty:
        return {}
    if not isinstance(document, dict):
        wanted = expected or f"sections: {', '.join(sections())}"
        raise ParamsError(path, [Problem(1, "", f"got {show(document)}, expected {wanted}")], see)
    return document


class _Reader:
    """Reads a document section by section and collects its problems."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.problems: set[Problem] = set()
        self.stated: dict[str, tuple[int, str]] = {}  # resolved path of a valid key -> its line and path in the file
        self.values: dict[str, dict[str, Any]] = {}
        self.shared: set[str] = set()  # keys that the phases need not state
        self.sets: dict[str, dict[str, Any]] = {}

    def read(self) -> dict[str, dict[str, Any]]:
        """The valid values of each section, those of the phases resolved."""
        known = sections()
        suspects = self._unknown(self.document, {**known, SETS: None}, "", 1)
        for name, section in known.items():
            written = name if name in self.document else suspects.get(name, "")
            line, content = line_of(self.document, written, 1), self.document.get(written)
            if isinstance(content, dict):
                self.values[name] = self._section(content, name, written, section)
                continue
            listed = ", ".join(section.keys)
            if written:
                wrong = f"got {show(content)}, expected a section with the keys {listed}"
            elif name == SHARED:
                wrong = f"section is missing: {self._how_to_move() or f'add it with keys of {listed}'}"
            else:
                wrong = f"section is missing: add it with its keys {listed}"
            self.problems.add(Problem(line, written or name, wrong))
            if name == SHARED:
                self.shared = set(section.keys)  # one problem, not one for each key
        self._check({}, self.stated)
        if SETS in self.document:
            self._sets(known["finetune"])
        return self.values

    def _check(self, changed: dict[str, Any], stated: dict[str, tuple[int, str]], only: str = "") -> None:
        """The conditions on several keys, with ``changed`` values; only those that name a key of section ``only``."""
        for check in CHECKS:
            if all(path in stated for path in check.paths) and any(path.startswith(only) for path in check.paths):
                got = [changed.get(path, self._value(path)) for path in check.paths]
                if not check.holds(*got):
                    (line, path), *_ = found = [stated[path] for path in check.paths]
                    self.problems.add(Problem(line, path, check.message([path for _, path in found], got)))

    def _value(self, path: str) -> Any:
        section, _, key = path.partition(".")
        return self.values[section].get(key)

    def _sets(self, finetune: Section) -> None:
        """The optional section `sets`: for each data set the keys of `finetune` that it changes."""
        content, line = self.document[SETS], line_of(self.document, SETS, 1)
        if not isinstance(content, dict):
            self.problems.add(Problem(line, SETS, f"got {show(content)}, expected data sets with keys of `finetune`"))
            return
        self._unknown(content, dict.fromkeys(ADAPTERS), f"{SETS}.", line)
        for name, entry in content.items():
            at, begin = f"{SETS}.{name}", line_of(content, name, line)
            if not isinstance(entry, dict):
                self.problems.add(Problem(begin, at, f"got {show(entry)}, expected keys of `finetune`"))
                continue
            self._unknown(entry, finetune.keys, f"{at}.", begin)
            found, stated = self.sets.setdefault(str(name), {}), dict(self.stated)
            for key in (finetune.keys[key] for key in entry if key in finetune.keys):
                here = line_of(entry, key.name, begin)
                value, wrong = check_value(entry[key.name], key)
                if wrong:
                    self.problems.add(Problem(here, f"{at}.{key.name}", wrong))
                else:
                    found[key.name], stated[f"finetune.{key.name}"] = value, (here, f"{at}.{key.name}")
            self._check({f"finetune.{key}": value for key, value in found.items()}, stated, "finetune.")

    def _how_to_move(self) -> str:
        """Advice for a file of the older form, in which each phase states every key."""
        phases = [phase for name in PHASES if isinstance(phase := self.document.get(name), dict)]
        equal = [
            f"{key}: {_yaml(value)}"
            for key, value in (phases[0] if len(phases) == len(PHASES) else {}).items()
            if key not in OWN and all(phase.get(key, ...) == value for phase in phases)
        ]
        if not equal:
            return ""
        new = [key for key in sections()[SHARED].keys.values() if all(key.name not in phase for phase in phases)]
        equal += [f"{key.name}: {_yaml(key.default)}" for key in new]
        return (
            f"state once what the three phases share. Add `phases` with {', '.join(equal)}, and delete these keys "
            f"from {', '.join(PHASES)}; keep there {', '.join(OWN)} and the keys that differ"
        )

    def _section(self, content: dict[str, Any], name: str, written: str, section: Section) -> dict[str, Any]:
        """The valid values of one section; a phase takes those of `phases` that it does not state."""
        line = line_of(self.document, written, 1)
        suspects = self._unknown(content, section.keys, f"{written}.", line)
        stated = {*content, *suspects}
        if name == SHARED:
            self.shared = stated
        values: dict[str, Any] = {}
        for key in section.keys.values():
            at = f"{name}.{key.name}"
            shared = f"{SHARED}.{key.name}"
            if key.name in content:
                here = line_of(content, key.name, line)
                value, wrong = check_value(content[key.name], key)
                if wrong:
                    self.problems.add(Problem(here, f"{written}.{key.name}", wrong))
                else:
                    values[key.name], self.stated[at] = value, (here, f"{written}.{key.name}")
            elif name in PHASES and key.name not in OWN:
                if shared in self.stated and key.name not in stated:
                    values[key.name], self.stated[at] = self.values[SHARED][key.name], self.stated[shared]
                elif key.name not in stated | self.shared:
                    missing = f"is missing: add `{key.name}: {_yaml(key.default)}` (the default) here or to each phase"
                    self.problems.add(Problem(line_of(self.document, SHARED, 1), shared, missing))
            elif name != SHARED and key.name not in stated:
                missing = f"is missing: add `{key.name}: {_yaml(key.default)}` (the default)"
                self.problems.add(Problem(line, f"{written}.{key.name}", missing))
        return values

    def _unknown(self, mapping: dict[Any, Any], known: Any, prefix: str, line: int) -> dict[str, str]:
        """Report undeclared keys; returns {missing name: the undeclared one that probably means it}."""
        suspects: dict[str, str] = {}
        moved = [name for name in MOVED if name in mapping] if prefix == "training." else []
        if moved:
            keys = ", ".join(f"`{name}: {_yaml(mapping[name])}`" for name in moved)
            hint = f"delete it here; other values than 1 belong in cluster.yaml: {keys} (`mirasol cluster check`)"
            self.problems.add(Problem(line_of(mapping, moved[0], line), f"{prefix}{' and '.join(moved)}", hint))
        for name in mapping:
            if name in known or name in moved:
                continue
            missing = [other for other in known if other not in mapping]
            guess = nearest(str(name), missing) or nearest(str(name), known)
            now = RENAMED.get(str(name), "") if prefix == "model." else ""
            if now in missing:
                hint, suspects[now] = f"it is called `{now}` now: write `{now}: {_yaml(mapping[name])}`", name
            elif guess is not None:
                hint = f"did you mean `{guess}`?"
                if guess in missing:
                    suspects[guess] = name
            else:
                owners = [s for s, section in sections().items() if prefix != f"{s}." and name in section.keys]
                hint = f"it belongs to {', '.join(owners)}" if owners else f"expected one of {', '.join(known)}"
            what = "data set" if prefix == f"{SETS}." else "key" if prefix else "section"
            self.problems.add(Problem(line_of(mapping, name, line), f"{prefix}{name}", f"unknown {what}: {hint}"))
        return suspects


def check_value(value: Any, key: Key) -> tuple[Any, str]:
    """The value as a plain Python one, and its fault ("" for none)."""
    wrong = f"got {show(value)}, expected {key.allowed()}"
    if key.kind is bool:
        return (bool(value), "") if _is_bool(value) else (None, wrong)
    if key.kind is dict:
        if not isinstance(value, dict):
            return None, wrong
        for name, number in value.items():
            if not isinstance(number, int) or _is_bool(number) or not key.holds(number):
                return None, f"got {name}: {show(number)}, expected {key.allowed()}"
        return {str(name): int(number) for name, number in value.items()}, ""
    if key.kind is str:
        if not isinstance(value, str):
            return None, wrong + ("" if key.choices else ": put it in quotes")
        return (str(value), "") if key.holds(value) else (None, wrong + _nearest_choice(value, key))
    if _is_bool(value) or not isinstance(value, (int, float)):
        return None, wrong
    if key.kind is int:
        if not isinstance(value, int):
            return None, wrong + (f": write {int(value)}" if math.isfinite(value) and value == int(value) else "")
        plain: int | float = int(value)
    else:
        plain = float(value)
        if not math.isfinite(plain):
            return None, wrong
    return (plain, "") if key.holds(plain) else (None, wrong)


def _is_bool(value: Any) -> bool:
    return type(value).__name__ in ("bool", "ScalarBoolean")  # both are ints to isinstance


def _nearest_choice(value: str, key: Key) -> str:
    guess = nearest(value, [str(choice) for choice in key.choices or ()])
    return f": did you mean `{guess}`?" if guess else ""


def line_of(mapping: Any, name: Any, otherwise: int) -> int:
    """Line of a key, from 1; ``otherwise`` for one from an anchor (``<<``)."""
    try:
        return int(mapping.lc.key(name)[0]) + 1
    except (KeyError, AttributeError):
        return otherwise


def _yaml(value: Any) -> str:
    """A value as the file would state it."""
    if value == "":
        return '""'
    return str(value).lower() if isinstance(value, bool) else str(value)
