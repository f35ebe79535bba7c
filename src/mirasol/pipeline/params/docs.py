"""docs/params.md and docs/params.schema.json, generated from the schema."""

from __future__ import annotations

from typing import Any

from mirasol.pipeline.params.checks import CHECKS, PHASES
from mirasol.pipeline.params.schema import OWN, SETS, SETS_DOC, SHARED, Key, sections

HEAD = f"""# Parameters

<!-- Written by `mirasol params docs` from the schema. Do not edit: change the dataclasses named below. -->

Everything that shapes a result is in `params.yaml` (or a file of `recipes/`). Every key must be stated: a missing
key, an unknown one and a value out of bounds are errors, all reported at once by `mirasol params check`, which also
shows the resolved file. Each entry shows the suggested value of a missing key, and the allowed values in parentheses.

The phases share the section `{SHARED}`: a phase takes from it every key that it does not state itself. Each phase
states {", ".join(f"`{key}`" for key in OWN)}, so that `dvc exp run -S finetune.lr=1e-4` works; a shared key is
changed for one phase by `-S +finetune.mute=0.1`. A recipe may also have the section `{SETS}`: {SETS_DOC}.
"""
TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def render() -> str:
    """The whole page as Markdown; sections that share a dataclass share a table."""
    parts = [HEAD]
    known = sections()
    names_of: dict[type, list[str]] = {}
    for name, section in known.items():
        names_of.setdefault(section.kind, []).append(name)
    for kind, names in names_of.items():
        parts.append("## " + ", ".join(f"`{name}`" for name in names) + "\n")
        about = [known[name].doc if len(names) == 1 else f"`{name}`: {known[name].doc}" for name in names]
        parts.append(f"{'; '.join(about)} (`{kind.__module__}.{kind.__qualname__}`).\n")
        shown = known[names[-1]].keys.values()
        parts.append("\n".join(f"- `{key.name}: {key.default}` ({_range(key)}): {key.doc}" for key in shown) + "\n")
    parts.append("## Checks across keys\n")
    rules: dict[str, list[str]] = {}
    for check in CHECKS:
        owner, _, key = check.paths[0].partition(".")
        if owner not in PHASES[1:]:  # a rule of one phase is a rule of each
            rules.setdefault(check.rule, []).append(f"a phase's `{key}`" if owner in PHASES else f"`{owner}.{key}`")
    parts.append("\n".join(f"- {', '.join(paths)}: {rule}" for rule, paths in rules.items()) + "\n")
    return "\n".join(parts)


def _range(key: Key) -> str:
    """The allowed values in few words: `1..4096`, `(0, 240]`, `rate|spread`."""
    if key.choices is not None:
        return "|".join(map(str, key.choices))
    low = f"({key.gt:g}" if key.gt is not None else f"[{key.ge:g}" if key.ge is not None else "("
    high = f"{key.lt:g})" if key.lt is not None else f"{key.le:g}]" if key.le is not None else ")"
    return f"{TYPES.get(key.kind, 'mapping')} {low},{high}" if low + high != "()" else TYPES.get(key.kind, "mapping")


def json_schema() -> dict[str, Any]:
    """A JSON Schema of the file for editors: keys, meanings, types and bounds, without the checks across keys."""
    known = sections()
    properties = {
        name: {
            "type": "object",
            "description": section.doc,
            "properties": {
                key.name: {"$ref": f"#/definitions/{key.name}"} if name in (SHARED, *PHASES) else _json_type(key)
                for key in section.keys.values()
            },
            "required": [] if name == SHARED else list(OWN if name in PHASES else section.keys),
            "additionalProperties": False,
        }
        for name, section in known.items()
    }
    phase = {name: {"$ref": f"#/definitions/{name}"} for name in known[PHASES[0]].keys}
    of_a_set = {"type": "object", "properties": phase, "additionalProperties": False}
    properties[SETS] = {"type": "object", "description": SETS_DOC, "additionalProperties": of_a_set}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "params.yaml of mirasol",
        "type": "object",
        "properties": properties,
        "required": list(known),
        "additionalProperties": False,
        "definitions": {key.name: _json_type(key) for key in known[PHASES[0]].keys.values()},
    }


def _json_type(key: Key) -> dict[str, Any]:
    bounds = {"minimum": key.ge, "exclusiveMinimum": key.gt, "maximum": key.le, "exclusiveMaximum": key.lt}
    limits: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    if key.choices is not None:
        limits["enum"] = list(key.choices)
    about = {"description": key.doc, "default": key.default}
    if key.kind is dict:
        return about | {"type": "object", "additionalProperties": {"type": "integer"} | limits}
    return about | {"type": TYPES[key.kind]} | limits
