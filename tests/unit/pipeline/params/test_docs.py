"""docs/params.md and docs/params.schema.json are what the schema says."""

from __future__ import annotations

import json
from pathlib import Path

from ruamel.yaml import YAML

from mirasol.pipeline.params.docs import json_schema, render
from mirasol.pipeline.params.schema import OWN, SETS, sections

ROOT = Path(__file__).parents[4]


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    assert page == render(), "run `mirasol params docs` and commit docs/params.md"


def test_every_key_is_listed_with_its_default() -> None:
    page = render()
    listed = [f"- `{key.name}: {key.default}` (" for section in sections().values() for key in section.keys.values()]
    assert [row for row in listed if row not in page] == []


def test_the_json_schema_is_up_to_date_and_params_yaml_names_it() -> None:
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    path = ROOT / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema(), "run `mirasol params docs` and commit it"


def test_the_json_schema_knows_what_the_loader_knows() -> None:
    properties = json_schema()["properties"]
    of_a_set = properties.pop(SETS)["additionalProperties"]
    assert set(of_a_set["properties"]) == set(sections()["finetune"].keys)
    assert {name: set(section["properties"]) for name, section in properties.items()} == {
        name: set(section.keys) for name, section in sections().items()
    }
    assert properties["finetune"]["required"] == list(OWN)
    assert "lr" not in properties["phases"]["properties"]
    assert properties["finetune"]["properties"]["lr"] == {"$ref": "#/definitions/lr"}
    assert json_schema()["definitions"]["lr"] == {
        "description": "peak learning rate",
        "default": 1e-3,
        "type": "number",
        "exclusiveMinimum": 0,
    }
    assert properties["model"]["properties"]["latent"]["enum"]


def test_every_params_file_states_what_the_json_schema_requires() -> None:
    for path in (ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))):
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        for name in json_schema()["required"]:
            section = json_schema()["properties"][name]
            assert set(section["required"]) <= set(document[name]) <= set(section["properties"]), f"{path}: {name}"
