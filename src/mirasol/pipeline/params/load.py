"""params.yaml -> :class:`Params`, or every problem of the file at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.pipeline.params.errors import ParamsError, Problem, nearest, show
from mirasol.pipeline.params.schema import CHECKS, Key, Params, keys, sections


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file (YAML 1.2, as DVC reads it: ``1e-3`` is a number, ``on`` is text).

    Raises:
        ParamsError: the file is not valid; the message names every problem with its line, dotted path,
            the value got, what is allowed, and for a misspelt key the nearest name.
        MirasolError: the file cannot be read.
    """
    path = Path(path)
    document = _parse(path)
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    values: dict[str, dict[str, Any]] = {}
    known = sections()
    suspects = _unknown(document, known, "", 1, problems)
    for name, (kind, _) in known.items():
        written = name if name in document else suspects.get(name)
        if written is None:
            problems.append(Problem(1, name, f"section is missing: add it with its keys {', '.join(keys(kind))}"))
            continue
        line, section = _line(document, written, 1), document[written]
        if not isinstance(section, dict):
            expected = f"expected a section with the keys {', '.join(keys(kind))}"
            problems.append(Problem(line, written, f"got {show(section)}, {expected}"))
            continue
        values[name] = _section(section, written, keys(kind), line, problems, lines)
    for check in CHECKS:
        if all(at in lines for at in check.paths):
            got = [values[at.split(".")[0]][at.split(".")[1]] for at in check.paths]
            if not check.holds(*got):
                problems.append(Problem(lines[check.paths[0]], check.paths[0], check.message(*got)))
    if problems:
        raise ParamsError(path, problems)
    return Params(**{name: kind(**values[name]) for name, (kind, _) in known.items()})


def _parse(path: Path) -> dict[str, Any]:
    """The file as a mapping that remembers its lines (ruamel's round-trip loader)."""
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
        raise ParamsError(path, [Problem(mark.line + 1 if mark else 1, "", f"not valid YAML: {reason}")]) from error
    except YAMLError as error:  # a character that YAML forbids: no mark
        raise ParamsError(path, [Problem(1, "", f"not valid YAML: {' '.join(str(error).split())}")]) from error
    if not isinstance(document, dict):
        expected = f"expected sections: {', '.join(sections())}"
        raise ParamsError(path, [Problem(1, "", f"got {show(document)}, {expected}")])
    return document


def _section(
    section: dict[str, Any], name: str, known: dict[str, Key], line: int, problems: list[Problem], lines: dict[str, int]
) -> dict[str, Any]:
    """The valid values of one section; problems and the lines of the valid keys are added to the last two arguments."""
    suspects = _unknown(section, known, f"{name}.", line, problems)
    values: dict[str, Any] = {}
    for key in known.values():
        at = f"{name}.{key.name}"
        if key.name in section:
            here = _line(section, key.name, line)
            value, wrong = _value(section[key.name], key)
            if wrong:
                problems.append(Problem(here, at, wrong))
            else:
                values[key.name], lines[at] = value, here
        elif key.name not in suspects:
            problems.append(Problem(line, at, f"is missing: add `{key.name}: {_yaml(key.default)}` (the default)"))
    return values


def _unknown(mapping: dict[Any, Any], known: Any, prefix: str, line: int, problems: list[Problem]) -> dict[str, str]:
    """Report keys that nobody declares; returns {missing name: the unknown one that was probably meant for it}."""
    suspects: dict[str, str] = {}
    for name in mapping:
        if name in known:
            continue
        missing = [other for other in known if other not in mapping]
        guess = nearest(str(name), missing) or nearest(str(name), known)
        if guess is not None:
            hint = f"did you mean `{guess}`?"
            if guess in missing:
                suspects[guess] = name
        else:
            owners = [s for s, (kind, _) in sections().items() if prefix != f"{s}." and name in keys(kind)]
            hint = f"it belongs to {', '.join(owners)}" if owners else f"expected one of {', '.join(known)}"
        what = "key" if prefix else "section"
        problems.append(Problem(_line(mapping, name, line), f"{prefix}{name}", f"unknown {what}: {hint}"))
    return suspects


def _value(value: Any, key: Key) -> tuple[Any, str]:
    """The value as a plain Python one, and what is wrong with it ("" for nothing)."""
    wrong = f"got {show(value)}, expected {key.allowed()}"
    is_bool = type(value).__name__ in ("bool", "ScalarBoolean")  # both are ints to isinstance
    if key.kind is bool:
        return (bool(value), "") if is_bool else (None, wrong)
    if key.kind is str:
        if not isinstance(value, str):
            return None, wrong + ("" if key.choices else ": put it in quotes")
        return (str(value), "") if key.holds(value) else (None, wrong + _nearest_choice(value, key))
    if is_bool or not isinstance(value, (int, float)):
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


def _nearest_choice(value: str, key: Key) -> str:
    guess = nearest(value, [str(choice) for choice in key.choices or ()])
    return f": did you mean `{guess}`?" if guess else ""


def _line(mapping: Any, name: Any, otherwise: int) -> int:
    """Line of a key, from 1; ``otherwise`` for one that came in through an anchor (``<<``)."""
    try:
        return int(mapping.lc.key(name)[0]) + 1
    except (KeyError, AttributeError):
        return otherwise


def _yaml(value: Any) -> str:
    """A default as it would be written in the file."""
    return str(value).lower() if isinstance(value, bool) else str(value)
