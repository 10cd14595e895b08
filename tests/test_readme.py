"""README says what the records say, and what it names exists."""

import re
from pathlib import Path

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.verdicts import readme
from tests.benchmarks import benchmarks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_writing_the_tables_anew_changes_nothing() -> None:
    """The README's results and its count of claims are those of `figures/`."""
    assert readme.written(README, ROOT / "figures") == README


def test_the_readmes_speeds_are_the_benchmarks() -> None:
    rows = pd.read_csv(ROOT / "figures" / "benchmarks.csv")
    written = README.split(benchmarks.README_MARKS[0])[1].split(benchmarks.README_MARKS[1])[0]
    assert written.strip() == benchmarks.readme_table(rows).strip()
    assert list(rows.columns) == list(benchmarks.COLUMNS) and len(rows) == len(benchmarks.CASES)


def test_the_table_of_speeds_is_written_from_the_published_results(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(README.replace("| SFT step, 32 samples |", "| old |"), encoding="utf-8")
    benchmarks.write_readme(file, ROOT / "figures")
    assert file.read_text(encoding="utf-8") == README


def test_every_file_the_readme_names_is_there() -> None:
    named = re.findall(r"(?:helpers|figures|notebooks)/[\w/]+\.\w+", README)
    assert named and all((ROOT / name).exists() for name in named)


def test_every_notebook_and_module_is_in_the_readme() -> None:
    names = [p.stem for p in (ROOT / "notebooks").glob("*.ipynb")]
    assert names and all(f"`{name}`" in README for name in names)
    modules = [p.name for p in (ROOT / "helpers").glob("*.py") if p.stem not in ("__init__", "errors")]
    assert all(f"helpers/{name}" in README for name in modules)


def test_the_table_shows_intervals_and_dashes() -> None:
    rows = [
        ("puzzle_exact", "base", "puzzle", 0.04, 0.04, 0.04, 1, 500),
        ("puzzle_exact", "rft", "puzzle", 0.5, 0.25, 0.75, 3, 500),
        ("minutes", "rft", "puzzle", 12.345, 12.0, 13.0, 3, 3),
    ]
    columns = ["quantity", "arm", "task", "value", "low", "high", "seeds", "n"]
    lines = readme.results_table(pd.DataFrame(rows, columns=columns)).splitlines()
    assert lines[2] == "| `base` | 1 | 0.04 | – | – | – | – | – | – | – |"
    assert lines[3] == "| `rft` | 3 | 0.50 [0.25, 0.75] | – | – | – | – | – | – | 12.3 [12.0, 13.0] |"


def test_writing_replaces_only_what_stands_between_the_marks(tmp_path: Path) -> None:
    box = "<!-- built-in -->\n<!-- /built-in -->\n<!-- answer -->\nold\n<!-- /answer -->"
    text = f"before\n<!-- results -->\nold\n<!-- /results -->\nbetween\n{box}\n<!-- claims -->"
    file = tmp_path / "README.md"
    file.write_text(f"{text}\nold\n<!-- /claims -->\nafter\n", encoding="utf-8")
    with pytest.raises(UserError, match="summary.csv is missing"):
        readme.write_readme(file, tmp_path)
    rows = [("puzzle_exact", "base", "puzzle", 0.04, 0.04, 0.04, 1, 500)]
    frame = pd.DataFrame(rows, columns=["quantity", "arm", "task", "value", "low", "high", "seeds", "n"])
    bases = frame.assign(base="two-form", value=0.9)  # of another study: not in this table
    pd.concat([bases, frame.assign(base="shipped")]).to_csv(tmp_path / "summary.csv", index=False)
    verdicts = pd.DataFrame({"verdict": ["holds", "undecided"], "reason": ["", "not run"]})
    verdicts.to_csv(tmp_path / "claims.csv", index=False)
    readme.write_readme(file, tmp_path)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines and "between" in lines
    assert any(line.startswith("| `base` | 1 | 0.04 |") for line in lines)
    assert "| we chose | what it could do |" in lines and any("no drops to tell of" in line for line in lines)
    assert lines[-3].startswith("Of 2 claims 1 hold, 0 fail and 1 are undecided")
    file.write_text("no marks", encoding="utf-8")
    with pytest.raises(UserError, match="once each"):
        readme.write_readme(file, tmp_path)
