"""The model card and the citation say what the files beside them say."""

from __future__ import annotations

import functools
import importlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors import safe_open
from test_structure import ORDER

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "helpers" / "base_model"
CARD = (MODEL / "README.md").read_text(encoding="utf-8")


def test_the_cards_scores_are_the_batterys() -> None:
    battery = pd.read_csv(ROOT / "figures" / "base_battery.csv")
    table = CARD.split("<!-- battery -->\n")[1].split("<!-- /battery -->")[0]
    wanted = [f"| {row.task} | {row.value:.3f} | {row.chance:.3f} |" for row in battery.itertuples()]
    assert table.splitlines() == wanted


def test_the_cards_sizes_are_the_models() -> None:
    config = json.loads((MODEL / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    assert f"{text['num_hidden_layers']} layers, width {text['hidden_size']}" in CARD
    assert f"{text['num_attention_heads']} heads" in CARD and f"vocabulary of {text['vocab_size']} tokens" in CARD
    assert f"{vision['depth']} blocks, width {vision['hidden_size']}" in CARD
    with safe_open(MODEL / "model.safetensors", "pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118 -- no mapping
    assert f"{count / 1e6:.1f} million parameters" in CARD


def test_every_file_the_card_names_is_there() -> None:
    named = re.findall(r"`((?:helpers|figures)/[\w/]+\.\w+)`", CARD)
    assert len(named) >= 3 and all((ROOT / name).exists() for name in named)


HOUSE = (ROOT / "helpers" / "README.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\d+\. `([\w/]+)\.py`:(.*)$", re.MULTILINE)


def test_the_house_lists_its_rooms_in_their_order() -> None:
    named = re.findall(r"`(\w+)(?:/|\.py)`", HOUSE.split("| room |")[1].split("Only `lab.py`")[0])
    rooms = [name for name in dict.fromkeys(named) if name in ORDER]
    assert rooms == list(ORDER)


@pytest.mark.parametrize("walk", HOUSE.split("## Three walks")[1].split("## How to")[0].split("\n**A")[1:])
def test_a_walk_goes_down_and_names_what_is_there(walk: str) -> None:
    steps = STEP.findall(walk)
    rooms = [ORDER.index(module.split("/")[0]) for module, _ in steps]
    assert len(steps) >= 6 and rooms == sorted(rooms)
    for module, told in steps:
        there = importlib.import_module(f"helpers.{module.replace('/', '.')}")
        name = re.search(r"`([\w.]+)`", told)[1]
        assert functools.reduce(getattr, name.split("."), there), f"{module}.py: {name}"


def test_every_file_that_the_house_names_is_there() -> None:
    named = re.findall(r"`((?:[a-z]+/)+[\w.]+)`", HOUSE)
    assert named and all((ROOT / "helpers" / name).exists() for name in named if not name.startswith("tests"))


PROSE = [*(ROOT / "helpers").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "README.md"]
NAMED = re.compile(r"`(\w+)\.(\w+)(?:\(\))?`")
ENDINGS = {"py", "csv", "json", "toml", "parquet", "png", "safetensors", "txt", "md"}
FIELDS = {"spec"}  # instances that docstrings speak of


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_in_prose_is_a_name_in_the_code(path: Path) -> None:
    modules: dict[str, list[str]] = {}
    for file in (ROOT / "helpers").rglob("[!_]*.py"):
        modules.setdefault(file.stem, []).append(".".join(file.relative_to(ROOT).with_suffix("").parts))
    for module, name in NAMED.findall(path.read_text(encoding="utf-8")):
        if module in modules and module not in FIELDS and name not in ENDINGS:
            assert any(hasattr(importlib.import_module(m), name) for m in modules[module]), f"`{module}.{name}`"


def test_the_citation_can_be_read() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert "2506.23508" in cited["references"][0]["identifiers"][0]["value"]
    assert f'license = "{cited["license"]}"' in (ROOT / "pyproject.toml").read_text()
