"""docs/params.md, written from the schema."""

from __future__ import annotations

from mirasol.pipeline.params.schema import CHECKS, keys, sections

HEAD = """# Parameters

<!-- Written by `mirasol params docs` from the schema. Do not edit: change the dataclasses named below. -->

Everything that shapes a result stands in `params.yaml` (or a file of `recipes/`). Every key must be stated: a missing
key, an unknown one and a value out of bounds are errors, all reported at once by `mirasol params check`. The column
"default" is what that report suggests for a missing key; the built-in world's own values are in `params.yaml`.
"""


def render() -> str:
    """The whole page as Markdown; sections that share a dataclass share a table."""
    parts = [HEAD]
    names_of: dict[type, list[str]] = {}
    for name, (kind, _) in sections().items():
        names_of.setdefault(kind, []).append(name)
    for kind, names in names_of.items():
        parts.append("## " + ", ".join(f"`{name}`" for name in names) + "\n")
        parts.append("\n".join(f"- `{name}`: {sections()[name][1]}" for name in names) + "\n")
        parts.append(f"Defined by `{kind.__module__}.{kind.__qualname__}`.\n")
        rows = ["| key | allowed | default | meaning |", "| --- | --- | --- | --- |"]
        for key in keys(kind).values():
            rows.append(f"| `{key.name}` | {key.allowed()} | `{key.default}` | {key.doc.replace('|', chr(92) + '|')} |")
        parts.append("\n".join(rows) + "\n")
    parts.append("## Checks across keys\n")
    rules: dict[str, list[str]] = {}
    for check in CHECKS:
        rules.setdefault(check.rule, []).append(f"`{check.paths[0]}`")
    parts.append("\n".join(f"- {', '.join(paths)}: {rule}" for rule, paths in rules.items()) + "\n")
    return "\n".join(parts)
