"""The page of a report as a person opens it: from a file, in both themes, without any other host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invented.ablations import made_ablation

from harness.reporting.reports import report_on

pytestmark = pytest.mark.timeout(600)
WHITE, DARK = "rgb(255, 255, 255)", "rgb(22, 27, 33)"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported") / "ablation"
    made_ablation(folder)
    return report_on(folder)[0]


@pytest.fixture(params=["light", "dark"])
def opened(chromium: Any, written: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, str, list[str]]]:
    """The page, the theme that the person's system asks for, and everything that the page asked for."""
    page = chromium.new_page(viewport={"width": 1200, "height": 1000}, color_scheme=request.param)
    asked: list[str] = []
    page.on("request", lambda made: asked.append(made.url))
    page.goto(written.as_uri())
    page.wait_for_load_state("networkidle")
    yield page, request.param, asked
    page.close()


def test_it_asks_for_nothing_but_itself(opened: tuple[Any, str, list[str]], written: Path) -> None:
    _, _, asked = opened
    assert {url for url in asked if not url.startswith("data:")} == {written.as_uri()}


def test_it_follows_the_theme_of_the_system(opened: tuple[Any, str, list[str]]) -> None:
    page, theme, _ = opened
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": WHITE, "dark": DARK}[theme]
    assert page.locator(f"img.{theme}").first.is_visible()
    other = {"light": "dark", "dark": "light"}[theme]
    assert not page.locator(f"img.{other}").first.is_visible()


def test_every_figure_that_is_shown_has_loaded(opened: tuple[Any, str, list[str]]) -> None:
    page, _, _ = opened
    widths = page.evaluate("[...document.images].filter(i => i.offsetParent).map(i => i.naturalWidth)")
    assert len(widths) > 5
    assert min(widths) > 100


def test_the_verdicts_stand_on_the_page(opened: tuple[Any, str, list[str]]) -> None:
    page, _, _ = opened
    said = page.inner_text("body")
    for word in ("odd_100% | <b>", "within noise", "95 % interval", "Differences and their noise"):
        assert word in said


def test_it_fits_a_phone(chromium: Any, written: Path) -> None:
    page = chromium.new_page(viewport={"width": 400, "height": 800})
    page.goto(written.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.close()


def test_what_is_wider_than_the_window_says_that_it_scrolls(chromium: Any, written: Path) -> None:
    page = chromium.new_page(viewport={"width": 400, "height": 800})
    page.goto(written.as_uri())
    found = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(box => [box.scrollWidth > box.clientWidth + 1, "
        "getComputedStyle(box, '::before').content.includes('scroll it sideways')])"
    )
    page.close()
    assert {True, False} == {wide for wide, _ in found}
    assert all(wide == said for wide, said in found)
