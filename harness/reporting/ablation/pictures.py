"""The same images seen by every variant: columns of the pictures that were drawn of each run, side by side."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.ablation.evaluate import PICTURE
from harness.reporting.document import Block, Data, Figure, Note, Section
from harness.reporting.figures import legend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from harness.ablation.results import Outcome
    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.themes import Theme

    Pixels = NDArray[np.uint8]

SHARED = ("image", "truth")
"""Columns that are the same for all variants."""
SHOWN = (
    ("predictions", "prediction", "What the teacher of each variant predicts"),
    ("agreement", "mix: both agree", "Where the pseudo-labels of logits and of representations agree, in each variant; "
     "elsewhere light grey"),
)  # fmt: skip
"""Name of a grid, the column that it compares, and what that shows."""
TOGETHER = 6
"""Variants in a figure."""
NAMED = 24
"""Classes up to which colours are named."""
GAP = 5
"""Pixels between tiles."""


class Tiles(NamedTuple):
    """A picture of a run, taken apart."""

    run: Outcome
    rows: Sequence[Mapping[str, Pixels]]
    """By the title of the column, an image a row: [h, w, 3]; all of one size."""


def pictures(record: AblationRecord) -> Section:
    """Return the section."""
    seed, runs = same_seed(record)
    found = {run.variant: tiles for run in runs if (tiles := take_apart(record.trial_folder(run) / PICTURE, run))}
    shapes = {name: (len(tiles.rows), tiles.rows[0]["image"].shape) for name, tiles in found.items()}
    first = next(iter(shapes.values()), None)
    found = {name: tiles for name, tiles in found.items() if shapes[name] == first}
    left_out = [name for name in record.variants if name not in found]
    blocks: list[Block] = []
    if found:
        names = [name for name in record.variants if name in found]
        groups = [names[start : start + TOGETHER] for start in range(0, len(names), TOGETHER)]
        for name, column, words in SHOWN:
            for turn, group in enumerate(groups):
                chosen = [found[variant] for variant in group]
                blocks.append(_grid(record, name if turn == 0 else f"{name}-{turn + 1}", column, words, chosen))
    if left_out:
        where = f" with seed {seed}" if seed is not None else ""
        blocks.append(Note(f"No picture (`{PICTURE}`){where} of {', '.join(left_out)}.", "missing"))
    return Section("Pictures", blocks)


def same_seed(record: AblationRecord) -> tuple[int | None, list[Outcome]]:
    """Return the first seed of which most variants have a picture, and its runs."""
    drawn = [run for runs in record.complete.values() for run in runs if (record.trial_folder(run) / PICTURE).exists()]
    seeds = record.found.request.seeds
    best = max(seeds, key=lambda seed: (sum(run.seed == seed for run in drawn), -seeds.index(seed)), default=None)
    runs = [run for run in drawn if run.seed == best]
    return (best, runs) if runs else (None, [])


def take_apart(path: Path, run: Outcome) -> Tiles | None:
    """Return the tiles of a picture that `trainers.figure.draw_predictions` drew; none of any other picture."""
    import numpy as np
    from PIL import Image

    from trainers.figure import COLUMNS, GAP, HEADER, PAPER

    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGB"))
    except OSError:
        return None
    width, rest = divmod(sheet.shape[1] - GAP, len(COLUMNS))
    width -= GAP
    if rest or width <= 0 or sheet.shape[0] <= HEADER:
        return None
    filled = (sheet[HEADER:] != PAPER).any(axis=(1, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], filled, [False]]))) + HEADER
    spans = [(int(top), int(bottom)) for top, bottom in zip(edges[::2], edges[1::2], strict=True)]
    if not spans or len({bottom - top for top, bottom in spans}) > 1:
        return None
    lefts = [GAP + column * (width + GAP) for column in range(len(COLUMNS))]
    rows = [
        {name: sheet[top:bottom, left : left + width] for name, left in zip(COLUMNS, lefts, strict=True)}
        for top, bottom in spans
    ]
    return Tiles(run, rows)


def _grid(record: AblationRecord, name: str, column: str, words: str, found: Sequence[Tiles]) -> Figure:
    first = found[0]
    titles = [*SHARED, *(tiles.run.variant for tiles in found)]
    height, width = first.rows[0]["image"].shape[:2]
    table = [
        [first.rows[row][shared] for shared in SHARED] + [tiles.rows[row][column] for tiles in found]
        for row in range(len(first.rows))
    ]
    classes = record.found.request.config.data.classes

    def paint(canvas: Any, theme: Theme) -> None:
        from matplotlib.colors import to_rgb

        canvas.get_layout_engine().set(h_pad=0.1)
        axes = canvas.subplots()
        axes.imshow(compose(table, to_rgb(theme.paper)), interpolation="nearest")
        for place, title in enumerate(titles):
            axes.text(place * (width + GAP), -0.05 * height, textwrap.fill(title, 14), fontsize=7.5, va="bottom",
                      color=theme.ink if place >= len(SHARED) else theme.muted)  # fmt: skip
        axes.set_axis_off()
        legend(canvas, _key(classes, theme) if len(classes) <= NAMED else [])

    seed = first.run.seed
    caption = f"{words}, with seed {seed}, on the first images of dev. Rows are images."
    alt = f"Grid of {len(table)} images: image, truth and {column} of {', '.join(titles[2:])}."
    ratio = (len(table) * (height + GAP)) / (len(titles) * (width + GAP))
    data = Data(["variant", "run", "seed"], [[tiles.run.variant, tiles.run.number, tiles.run.seed] for tiles in found])
    return Figure(name, caption, alt, paint, data, (7.6, 7.4 * ratio + 0.55 + 0.2 * (-(-len(classes) // 5))))


def compose(table: Sequence[Sequence[Pixels]], paper: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the tiles of a table of rows in one image, [H, W, 3] in [0, 1], with gaps of the colour of the paper."""
    import numpy as np

    height, width = table[0][0].shape[:2]
    shape = (len(table) * (height + GAP) - GAP, len(table[0]) * (width + GAP) - GAP, 3)
    sheet = np.broadcast_to(np.asarray(paper, np.float64), shape).copy()
    for row, tiles in enumerate(table):
        for column, tile in enumerate(tiles):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = tile / 255
    return sheet


def _key(classes: Sequence[str], theme: Theme) -> list[Any]:
    """Return what a legend shows of the colours of classes."""
    from matplotlib.patches import Patch

    from trainers.figure import palette

    colours = palette(len(classes)) / 255
    return [Patch(facecolor=tuple(colours[index]), edgecolor=theme.muted, linewidth=0.4, label=name)
            for index, name in enumerate(classes)]  # fmt: skip
