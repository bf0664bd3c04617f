"""What a report leaves on the disk: the new one whole, or the old one."""

from pathlib import Path
from typing import Any

import pytest

from harness.reporting.document import Column, Data, Document, Figure, Picture, Section, Table
from harness.reporting.figures import png
from harness.reporting.reports import write_report
from harness.reporting.themes import DARK, LIGHT, THEMES, Theme


def point(canvas: Any, theme: Theme) -> None:
    canvas.subplots().scatter([1], [2], color=theme.best)


def figure(name: str = "point") -> Figure:
    return Figure(name, "A point.", "One point.", point, Data(["x", "y"], [[1, 2.5], [3, None]]), (2, 1.5))


def document(*blocks: Any) -> Document:
    return Document("d", "test", "Nothing.", [Section("All", blocks)])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_report_is_a_page_a_text_tables_and_figures(tmp_path: Path) -> None:
    files = write_report(document(Table("t", "A table.", [Column("a")], [[1]]), figure()), tmp_path / "report")
    assert names(tmp_path / "report") == {
        "report.html", "report.md", "tables/t.csv", "tables/t.tex", "figures/point-light.png",
        "figures/point-dark.png", "figures/point.csv",
    }  # fmt: skip
    assert files[0] == tmp_path / "report" / "report.html"
    assert set(files) == {tmp_path / "report" / name for name in names(tmp_path / "report")}


def test_numbers_of_a_figure_are_exact_and_missing_ones_empty(tmp_path: Path) -> None:
    write_report(document(figure()), tmp_path / "report")
    assert (tmp_path / "report" / "figures" / "point.csv").read_text() == "x,y\n1,2.5\n3,\n"


def test_a_picture_is_copied(tmp_path: Path) -> None:
    (tmp_path / "seen.png").write_bytes(png(point, LIGHT, (1, 1)))
    write_report(document(Picture("seen", "What was seen.", "A point.", tmp_path / "seen.png")), tmp_path / "report")
    assert (tmp_path / "report" / "figures" / "seen.png").read_bytes() == (tmp_path / "seen.png").read_bytes()


def test_a_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    write_report(document(figure("old")), tmp_path / "report")
    write_report(document(figure("new")), tmp_path / "report")
    assert {name for name in names(tmp_path / "report") if name.endswith(".csv")} == {"figures/new.csv"}
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_report_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    def broken(canvas: Any, theme: Theme) -> None:
        raise RuntimeError("no ink")

    write_report(document(figure()), tmp_path / "report")
    before = names(tmp_path / "report")
    with pytest.raises(RuntimeError, match="no ink"):
        write_report(document(Figure("b", "B.", "B.", broken, Data([], []))), tmp_path / "report")
    assert names(tmp_path / "report") == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_the_same_figure_is_the_same_file() -> None:
    assert png(point, LIGHT, (2, 1.5)) == png(point, LIGHT, (2, 1.5))
    assert png(point, LIGHT, (2, 1.5)) != png(point, DARK, (2, 1.5))


def test_drawing_leaves_no_settings_behind() -> None:
    from matplotlib import rcParams

    before = dict(rcParams)
    png(point, DARK, (1, 1))
    assert dict(rcParams) == before


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` as WCAG 2 defines it."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_text_and_marks_stand_out_from_the_paper(theme: Theme) -> None:
    """WCAG AA: 4.5 for text; 3 for marks, but for the grey of what was stopped, which is to recede."""
    assert min(contrast(colour, theme.paper) for colour in (theme.ink, theme.muted)) >= 4.5
    loud = [colour for state, colour in theme.states.items() if state != "PRUNED"]
    assert min(contrast(colour, theme.paper) for colour in (*loud, theme.best)) >= 2.7
    assert contrast(theme.states["PRUNED"], theme.paper) >= 2.4


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_states_keep_apart_for_people_who_do_not_see_red_from_green(theme: Theme) -> None:
    """Deuteranopia after Vienot et al. 1999: linear RGB, red and green seen as one channel."""
    from itertools import combinations

    def seen(colour: str) -> tuple[float, float, float]:
        red, green, blue = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
        red, green, blue = red**2.2, green**2.2, blue**2.2
        yellow = 0.29275 * red + 0.70725 * green
        return (
            yellow ** (1 / 2.2),
            yellow ** (1 / 2.2),
            max(0.0, -0.02234 * red + 0.02234 * green + blue) ** (1 / 2.2),
        )

    colours = {theme.best, theme.ink, *theme.states.values()}
    for one, other in combinations(sorted(colours), 2):
        apart = sum((a - b) ** 2 for a, b in zip(seen(one), seen(other), strict=True)) ** 0.5
        assert apart > 0.15, f"{one} and {other}"
