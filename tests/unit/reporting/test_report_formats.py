"""The same blocks as HTML, Markdown, CSV and LaTeX: whole, escaped, and asking nothing of any host."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.reporting.document import (
    Column,
    Commands,
    Data,
    Document,
    Facts,
    Figure,
    Note,
    Picture,
    Section,
    Table,
    Text,
)
from harness.reporting.html import Themed, table_html, to_html
from harness.reporting.markdown import to_markdown
from harness.tables import table_csv, table_markdown

NASTY = "a<b> & \"c\" | $d_e% {f} ~g^ \\h #i *j* [k](l) 'm' <script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects tags with their attributes, text, and whether all tags are closed."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def nothing(canvas: Any, theme: Any) -> None:
    """Draw nothing."""


def some_table(shown: int = 50) -> Table:
    columns = [Column("name"), Column("short", name="a.long.path", form=".2f"), Column("flag"), Column("n")]
    rows = [[NASTY, 0.123456789, True, 3], ["b", None, False, None], ["c", -1.5, True, 12]]
    return Table("some-table", f"Caption with `code_1` and {NASTY}", columns, rows, frozenset({1}), shown=shown)


@pytest.fixture
def page(tmp_path: Path) -> str:
    (tmp_path / "l.png").write_bytes(b"light")
    (tmp_path / "d.png").write_bytes(b"dark")
    return to_html(whole(tmp_path), {"fig": Themed(tmp_path / "l.png", tmp_path / "d.png"),
                                     "pic": Themed(tmp_path / "l.png", tmp_path / "l.png")}, "the `foot`")  # fmt: skip


def whole(folder: Path) -> Document:
    blocks = [Text(f"text `x_y` {NASTY}"), Note("careful", "caution"), Facts([("name", NASTY)]),
              Commands([("s4 report x", "what it does")]), some_table(),
              Figure("fig", "Caption.", f"alt {NASTY}", nothing, Data([], [])),
              Picture("pic", "Caption.", "alt", folder / "l.png")]  # fmt: skip
    return Document("title_1", "search", f"lead {NASTY}", [Section("One & two", blocks), Section("One & two", ())])


def test_the_page_asks_nothing_of_any_file_or_host(page: str) -> None:
    reader = Reader(page)
    for _, attributes in reader.tags:
        for name in ("src", "href", "data", "poster", "srcset", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?:|fetch|XMLHttp|import\(", page[page.rindex("<script>") :])
    [policy] = [one["content"] for one in reader.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_tag_of_the_page_is_closed(page: str) -> None:
    assert Reader(page).open == []


def test_every_picture_has_a_text_and_figures_have_two_looks(page: str) -> None:
    images = Reader(page).of("img")
    assert [(image.get("class"), image["src"]) for image in images] == [
        ("light", "data:image/png;base64,bGlnaHQ="), ("dark", "data:image/png;base64,ZGFyaw=="),
        (None, "data:image/png;base64,bGlnaHQ="),
    ]  # fmt: skip
    assert all(image["alt"] for image in images)


def test_what_was_written_is_shown_and_not_run(page: str) -> None:
    reader = Reader(page)
    assert len(reader.of("script")) == 1
    assert f"lead {NASTY}" in "".join(reader.text)


def test_sections_have_anchors_of_their_own(page: str) -> None:
    reader = Reader(page)
    marks = [one["id"] for one in reader.of("h2")]
    assert marks == ["one-two", "one-two-1"]
    assert [one["href"] for one in reader.of("a")] == ["#content", "#one-two", "#one-two-1"]


def test_tables_have_captions_heads_and_values_to_sort_by() -> None:
    reader = Reader(table_html(some_table()))
    assert len(reader.of("caption")) == 1
    assert [head["scope"] for head in reader.of("th")] == ["col"] * 4
    assert [head.get("title") for head in reader.of("th")] == [None, "a.long.path", None, None]
    assert [cell.get("data-value") for cell in reader.of("td")][:8] == [
        None,
        "0.123456789",
        None,
        "3",
        None,
        "",
        None,
        "",
    ]


def test_a_page_says_what_a_table_leaves_out_and_the_csv_holds_it() -> None:
    table = some_table(shown=1)
    assert "2 more rows" in table_html(table)
    assert "2 more rows" in table_markdown(table)
    assert len(table_csv(table).splitlines()) == 4


def test_markdown_shows_text_as_it_is_and_code_as_code(tmp_path: Path) -> None:
    text = to_markdown(whole(tmp_path), {"fig": "figures/fig-light.png", "pic": "figures/pic.png"})
    assert "text `x_y` a\\<b\\> & " in text
    assert "](figures/fig-light.png)" in text
    assert "> **Caution:** careful" in text
    assert "    s4 report x    what it does" in text


def test_a_figure_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="alternative text"):
        Figure("f", "caption", " ", nothing, Data([], []))


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="got twice: t"):
        Document("d", "k", "", [Section("s", [Table("t", "", [], []), Table("t", "", [], [])])])
