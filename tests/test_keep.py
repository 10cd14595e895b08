"""A published figure stays while nothing but rounding moved, and never where its records changed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.show import keep, plots, style
from helpers.show.save import SUFFIXES, Source, save_table, savefig
from helpers.study import published
from helpers.study.published import PUBLISHED, records_digest

RECORDS = Source.of(["beef"], records="1234")


def points(move: float = 0.0, label: str = "a") -> pd.DataFrame:
    return pd.DataFrame({"task": [label, "b"], "value": [1.0 + move, 2.0], "live": [1.0, 4.0 * (1 + move)]})


def figure(title: str = "Two tokens", nats: float = -2.0):
    fig = plots.heat_tokens(["a", "b"], [-1.0, nats])
    fig.axes[0].set_title(title)
    return fig


def saved(
    folder: Path, data: pd.DataFrame, alt: str = "It is 1.", source: Source = RECORDS, **look
) -> dict[str, bytes]:
    savefig(figure(**look), "it", alt=alt, data=data, source=source, folder=folder)
    return {suffix: (folder / f"it.{suffix}").read_bytes() for suffix in SUFFIXES}


def test_rounding_leaves_every_byte(tmp_path: Path) -> None:
    before = saved(tmp_path, points())
    assert saved(tmp_path, points(1e-10), "It is 2.", nats=-2.0001) == before


@pytest.mark.parametrize(
    "change",
    [
        {"data": points(1e-4)},  # beyond the tolerance of a column that comes from records
        {"data": points(label="c")},
        {"data": points().iloc[:1]},
        {"alt": "It was 1."},
        {"alt": "It is 3."},
        {"title": "Two words"},
        {"source": Source.of(["cafe"], "1234")},
        {"source": Source.of(["beef"], "5678")},  # other records, whatever the data say
    ],
    ids=str,
)
def test_a_change_is_written(tmp_path: Path, change: dict) -> None:
    before = saved(tmp_path, points())
    assert saved(tmp_path, **({"data": points()} | change)) != before


def test_a_column_that_runs_through_the_model_has_its_own_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "TOLERANCES", {"it": {"live": 1e-3}})
    assert keep.same_data(points()[["live"]], points(9e-4)[["live"]], "it")
    assert not keep.same_data(points()[["live"]], points(2e-3)[["live"]], "it")
    assert not keep.same_data(points()[["live"]], points(9e-4)[["live"]], "another")
    assert not keep.same_data(points()[["value"]], points(9e-4)[["value"]], "it")


def test_every_tolerance_is_of_a_column_of_a_published_figure() -> None:
    for figure, columns in keep.TOLERANCES.items():
        assert set(columns) <= set(pd.read_csv(f"figures/{figure}.csv").columns), figure


def test_a_missing_file_is_made_again(tmp_path: Path) -> None:
    before = saved(tmp_path, points())
    (tmp_path / "it.svg").unlink()
    assert saved(tmp_path, points()) == before


def test_a_drawing_that_moved_is_written_though_its_data_did_not(tmp_path: Path) -> None:
    def line(values: list[float], place: str):
        fig = style.new_figure(4, 3)
        fig.add_subplot().plot(values, label="a")
        fig.axes[0].legend(loc=place)
        return fig

    written = []
    for values, place in (
        ([1, 2, 3], "upper left"),
        ([1, 2, 3], "upper left"),
        ([3, 2, 1], "upper left"),
        ([3, 2, 1], "lower left"),
    ):
        savefig(line(values, place), "it", alt="A line.", data=points(), folder=tmp_path)
        written.append((tmp_path / "it.svg").read_bytes())
    assert written[0] == written[1] and len(set(written)) == 3


def test_a_drawing_with_tolerances_may_differ_in_a_few_digits_and_not_in_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "TOLERANCES", {"live": {"value": 1e-3}})
    drawing = "<svg>{}</svg>"
    rows = [f'<text x="{k}" y="1"/>' for k in range(300)]
    shifted = [row.replace('x="7"', 'x="90"') for row in rows]
    assert keep.same_look(drawing.format("".join(rows)), drawing.format("".join(shifted)), "live")
    assert not keep.same_look(drawing.format("".join(rows)), drawing.format("".join(shifted)), "exact")
    assert not keep.same_look(drawing.format("".join(rows)), drawing.format("".join(rows[::-1])), "live")
    assert keep.same_look(drawing.format("".join(rows)), drawing.format("".join(rows[:-1] + ["<path/>"])), "live")
    assert not keep.same_look(drawing.format("".join(rows)), drawing.format("".join(rows[:250])), "live")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [("0.12 of 5", "0.13 of 5", True), ("0.12", "0.14", False), ("5 high", "90 high", False),
     ("1,200,000 times", "1,300,000 times", True), ("1,200,000 times", "1,500,000 times", False)],
)  # fmt: skip
def test_numbers_in_words_may_move_by_a_rounding(before: str, now: str, same: bool) -> None:
    assert keep.same_words(before, now) is same


def test_infinity_hides_nothing() -> None:
    before, now = (pd.DataFrame({"live": [float("inf"), value]}) for value in (1.0, 2.0))
    assert keep.same_data(before, before) and not keep.same_data(before, now)


def test_a_small_number_beside_a_large_one_is_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    save_table(pd.DataFrame({"value": [20480.0, 0.109]}), path)
    save_table(pd.DataFrame({"value": [20480.0, 0.1091]}), path)
    assert "0.1091" in path.read_text()


def test_tables_are_kept_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    save_table(points(), path)
    before = path.read_bytes()
    save_table(points(1e-10), path)
    assert path.read_bytes() == before
    save_table(points(1e-5), path)
    assert path.read_bytes() != before


def test_a_changed_record_is_never_hidden_by_a_tolerance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One value of one record moves by less than any tolerance: the digest differs, so the figure is written again."""
    stock = published.table

    def nudged(profile: str, name: str) -> pd.DataFrame:
        rows = stock(profile, name)
        moved = rows.index == 7 if name == "metrics" else [False] * len(rows)
        return rows.assign(value=rows["value"].mask(moved, rows["value"] + 1e-12)) if any(moved) else rows

    first = records_digest("cpu")
    before = saved(tmp_path, points(), source=Source.of([], first))
    assert records_digest("cpu") == first and saved(tmp_path, points(), source=Source.of([], first)) == before
    monkeypatch.setattr(published, "table", nudged)
    assert records_digest("cpu") != first
    assert saved(tmp_path, points(), source=Source.of([], records_digest("cpu"))) != before


def test_controls_count_as_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = records_digest("cpu")
    (tmp_path / "controls").mkdir()
    for path in [*(PUBLISHED / "controls").iterdir(), *PUBLISHED.glob("*.csv")]:
        (tmp_path / path.relative_to(PUBLISHED)).write_bytes(path.read_bytes())
    monkeypatch.setattr(published, "table", lambda profile, name, stock=published.table: stock(profile, name))
    whole = {name: published.table("cpu", name) for name in published.TABLES}
    monkeypatch.setattr(published, "table", lambda profile, name: whole[name])
    monkeypatch.setattr(published, "PUBLISHED", tmp_path)
    assert records_digest("cpu") == first
    (tmp_path / "controls" / "new.parquet").write_bytes(b"x")
    assert records_digest("cpu") != first


def test_without_records_there_is_no_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert records_digest("smoke") == ""
