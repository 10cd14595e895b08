"""The landing page: its routes take the minutes they promise and lead to what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def text(name: str) -> str:
    """The Markdown of a notebook."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


INDEX = text("index.ipynb")


@pytest.mark.parametrize("minutes", [15, 60, 90])
def test_a_routes_stops_add_up_to_its_minutes(minutes: int) -> None:
    (route,) = re.findall(rf"^\*\*{minutes} minutes: .*?(?=^\*\*\d+ minutes|^For a)", INDEX, re.DOTALL | re.MULTILINE)
    assert sum(map(int, re.findall(r"^\| (\d+) \|", route, re.MULTILINE))) == minutes


def test_every_link_leads_to_a_notebook_or_a_figure() -> None:
    links = re.findall(r"\]\(([^)]+)\)", INDEX)
    assert len(links) > 8 and all((NOTEBOOKS / link).exists() for link in links)


@pytest.mark.parametrize(("notebook", "last"), re.findall(r"\]\((\w+\.ipynb)\), sections? (?:\d+ to )?(\d+)", INDEX))
def test_every_section_that_a_route_names_is_there(notebook: str, last: str) -> None:
    assert re.search(rf"^## {last} ", text(notebook), re.MULTILINE)


def test_the_page_to_play_on_points_at_no_file_outside_its_folder() -> None:
    """Voila answers a picture beside the notebook's folder with an error in place of the whole page."""
    assert "](../" not in text("play.ipynb")


def test_every_view_and_panel_of_the_page_to_play_on_is_a_cell_of_its_own() -> None:
    cells = json.loads((NOTEBOOKS / "play.ipynb").read_text(encoding="utf-8"))["cells"]
    tags = [tag for cell in cells for tag in cell["metadata"].get("tags", [])]
    assert (tags.count("view"), tags.count("panel")) == (5, 3)
