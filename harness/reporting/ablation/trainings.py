"""Trainings of an ablation: their curves over optimizer steps, and the same images as each variant sees them."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from harness.ablation.results import Outcome
from harness.reporting.ablation.record import AblationRecord, line_style, short
from harness.reporting.document import Block, Cell, Column, Data, Figure, Note, Section, Table, Text
from harness.reporting.figures import NAMED, Curve, class_handles, legend, paint_panels
from harness.reporting.themes import Theme
from harness.run_folder import OVERLAYS as PICTURE
from trainers.figure import COLUMNS, GAP, HEADER, PAPER

WATCHED = "dev/miou"
FEW = 4
"""Variants that share one panel; more get one each."""
ACROSS = 3
"""Panels in a row of small multiples."""
KINDS = {
    "logit": "logits", "confident": "logits, confident", "veto": "vetoed by weak labels",
    "representation": "representations", "mix": "mix: both",
}  # fmt: skip
"""Pseudo-labels whose quality is known, by the name in metrics."""
MEASURES = {
    "miou": "mIoU of pseudo-labels on unlabelled images against the truth that training never sees",
    "accuracy": "Accuracy of pseudo-labels on unlabelled images",
}
SHARED = ("image", "truth")
"""Columns of a picture that are the same for all variants."""
SHOWN = {
    "predictions": ("prediction", "What the teacher of each variant predicts"),
    "agreement": ("mix: both agree", "Where the pseudo-labels of logits and of representations agree, in each variant; "
                  "elsewhere light grey"),
    "similarity": ("similarity", "Where the similarity indicator of the nearest prototype is low (dark) and high, in "
                   "each variant on a scale of its own"),
}  # fmt: skip
"""By the name of a grid, the column that it compares, and what that shows."""
TOGETHER = 6
"""Variants in a grid."""
APART = 5
"""Pixels between tiles of a grid."""

Scores = Mapping[int, Sequence[float]]
"""Of the runs of a variant, by step."""
Lines = Mapping[str, Scores]
"""Of a metric, by variant."""
Pixels = NDArray[np.uint8]
Rows = Sequence[Mapping[str, Pixels]]
"""Tiles of a picture: an image a row, by the title of the column: [h, w, 3]; all of one size."""


def curves(record: AblationRecord) -> Section:
    """Return the section on how training went."""
    prefix = "train/loss/"
    losses = {name: name.removeprefix(prefix) for name in record.reported if name.startswith(prefix)}
    caption = "Losses of the training batches, unweighted, over the steps since the report before; means over seeds."
    figures = [watched(record), panels(record, "losses", caption, losses)]
    blocks = [figure for figure in figures if figure is not None]
    note = Note("No complete training has two reports, so there are no curves.", "missing")
    return Section("Learning curves", blocks or [note])


def quality(record: AblationRecord) -> Section | None:
    """Return the section on pseudo-labels; none where nobody looked at them."""
    figures = [
        panels(record, f"pseudo-label-{measure}", f"{caption}, means over seeds.",
               {f"quality/{kind}/{measure}": label for kind, label in KINDS.items()}, share_y=True)
        for measure, caption in MEASURES.items()
    ]  # fmt: skip
    caption = ("Shares of pixels, means over seeds: on which both spaces agree and that are kept as labels "
               "(`quality/`), and that losses use (`train/share/`).")  # fmt: skip
    shares = {name: label for name in record.reported if (label := _share(name))}
    figures.append(panels(record, "shares", caption, shares))
    blocks = [figure for figure in figures if figure is not None]
    return Section("Pseudo-labels", [*blocks, last_values(record)]) if blocks else None


def _share(metric: str) -> str | None:
    match metric.split("/"):
        case ["quality", "agreement"]:
            return "agreement"
        case ["train", "share", name]:
            return f"{name.replace('_', ' ')}, in losses"
        case [_, "veto", "share"]:
            return KINDS["veto"]
        case [_, kind, "share"]:
            return f"kept: {KINDS[kind]}"
    return None


def last_values(record: AblationRecord) -> Table:
    """Return the table of the quality of pseudo-labels at the horizon: a row a variant."""
    metrics = [name for name in record.reported if name.startswith("quality/")]
    columns = [Column(metric.removeprefix("quality/"), name=metric, form=".3f") for metric in metrics]
    rows = [[name, *(record.ablation.summary(name, metric).mean for metric in metrics)] for name in record.variants]
    caption = "Pseudo-labels at the horizon, means over seeds."
    return Table("pseudo-labels", caption, [Column("variant"), *columns], rows)


def health(record: AblationRecord) -> Section | None:
    """Return the section on what shows that a training goes astray; none where it was not reported."""
    prefix = "health/"
    labels = {name: name.removeprefix(prefix).replace("_", " ") for name in record.reported if name.startswith(prefix)}
    caption = "Health of prototypes, teacher and predictions at each report, means over seeds."
    figure = panels(record, "health", caption, labels)
    text = Text(
        "Prototypes that drift for long or come close to each other, a teacher far from its student, and predictions "
        "of few classes (entropy near 0) are what collapse looks like before scores show it."
    )
    return Section("Health", [text, figure]) if figure is not None else None


def watched(record: AblationRecord) -> Figure | None:
    """Return the curves of `dev/miou` with their bands: together, or a panel each behind which the base is drawn."""
    curves = curves_of(record, [WATCHED]).get(WATCHED)
    if curves is None:
        return None
    variants = [name for name, curve in curves.items() if len(curve) > 1]
    bases = [name for name in variants if name == record.base_of(name)]
    apart = len(variants) > FEW
    alone = ", and with one seed there is none" if any(len(runs) == 1 for runs in record.complete.values()) else ""
    dashed = f" The dashed line in every panel is {record.base}." if apart and bases else ""
    caption = (f"{WATCHED} of the teacher at each report, mean over seeds. The band is from the lowest seed to the "
               f"highest{alone}.{dashed}")  # fmt: skip

    def paint(canvas: Any, theme: Theme) -> None:
        lines = {name: _mean(record, name, curves[name], theme, band=True) for name in variants}
        if not apart:
            paint_panels(canvas, [("", [*lines.values()])], y_label=WATCHED)
            return
        behind = {name: [Curve(lines[name].points, {**lines[name].style, "zorder": 1})] for name in bases}
        small = [
            (line.label, [*behind.get(record.base_of(name), []), replace(line, label="")])
            for name, line in lines.items()
            if name not in bases
        ]
        paint_panels(canvas, small, ACROSS, WATCHED, share_y=True)

    height = 0.8 + 2.0 * -(-(len(variants) - len(bases)) // ACROSS) if apart else 4.0
    alt = f"Curves of {WATCHED} over optimizer steps with bands, for {', '.join(variants)}."
    return Figure("learning-curves", caption, alt, paint, numbers({WATCHED: curves}), (7.6, height))


def panels(
    record: AblationRecord, name: str, caption: str, labels: Mapping[str, str], share_y: bool = False
) -> Figure | None:
    """Return a figure with a panel for each metric that ever changes, and in it the mean over seeds of each variant.

    None where no metric has curves. `labels` are by metric.
    """
    curves = curves_of(record, labels)
    if not curves:
        return None
    moving = [metric for metric, lines in curves.items() if _changes(lines)] or [*curves]
    still = [labels[metric] for metric in curves if metric not in moving]
    if still:
        caption = f"{caption} Not shown, for it never changes: {', '.join(still)}."
    across = min(ACROSS, len(moving)) if len(moving) != 4 else 2
    down = -(-len(moving) // across)

    def paint(canvas: Any, theme: Theme) -> None:
        lines = {metric: [_mean(record, *line, theme) for line in curves[metric].items()] for metric in moving}
        paint_panels(canvas, [(labels[metric], lines[metric]) for metric in moving], across, share_y=share_y)

    alt = f"Curves of {', '.join(moving)} over optimizer steps, a line a variant."
    return Figure(name, caption, alt, paint, numbers(curves), (7.6, 1.0 + (2.8 if down == 1 else 2.1 * down)))


def _changes(lines: Lines) -> bool:
    return len({value for curve in lines.values() for values in curve.values() for value in values}) > 1


def curves_of(record: AblationRecord, metrics: Iterable[str]) -> dict[str, Lines]:
    """Return the curve of each variant, by metric; without metrics of which no variant has two reports."""
    curves: dict[str, Lines] = {}
    for metric in metrics:
        lines = {variant: record.curve(variant, metric) for variant in record.variants}
        if any(len(curve) > 1 for curve in lines.values()):
            curves[metric] = lines
    return curves


def numbers(curves: Mapping[str, Lines]) -> Data:
    """Return what curves show: a row for each step, variant and metric."""
    rows: list[list[Cell]] = [
        [step, variant, metric, len(values), statistics.fmean(values), min(values), max(values)]
        for metric, lines in curves.items() for variant, curve in lines.items() for step, values in curve.items()
    ]  # fmt: skip
    return Data(["step", "variant", "metric", "seeds", "mean", "lowest", "highest"], rows)


def _mean(record: AblationRecord, variant: str, curve: Scores, theme: Theme, band: bool = False) -> Curve:
    points = [(step, statistics.fmean(values)) for step, values in curve.items()]
    ends = [(min(values), max(values)) for values in curve.values()] if band else []
    return Curve(points, {**line_style(record, variant, theme), "markersize": 2.8}, short(variant), ends)


def pictures(record: AblationRecord) -> Section:
    """Return the section of the same images as each variant sees them."""
    runs = same_seed(record)
    tiles = [(run, rows) for run in runs if (rows := take_apart(record.trial_folder(run) / PICTURE))]
    shapes = [(len(rows), rows[0]["image"].shape) for _, rows in tiles]
    drawn = [each for each, shape in zip(tiles, shapes, strict=True) if shape == shapes[0]]
    blocks: list[Block] = []
    for name, (column, words) in SHOWN.items():
        for start in range(0, len(drawn), TOGETHER):
            full_name = f"{name}-{start // TOGETHER + 1}" if start else name
            blocks.append(_grid(record, full_name, column, words, drawn[start : start + TOGETHER]))
    left_out = [name for name in record.variants if name not in [run.variant for run, _ in drawn]]
    if left_out:
        where = f" with seed {runs[0].seed}" if runs else ""
        blocks.append(Note(f"No picture (`{PICTURE}`){where} of {', '.join(left_out)}.", "missing"))
    return Section("Pictures", blocks)


def same_seed(record: AblationRecord) -> list[Outcome]:
    """Return the runs with a picture of the first seed of which most variants have one, in the order of the table."""
    drawn = [run for runs in record.complete.values() for run in runs if (record.trial_folder(run) / PICTURE).exists()]
    by_seed = [[run for run in drawn if run.seed == seed] for seed in record.ablation.request.seeds]
    return max(by_seed, key=len, default=[])


def take_apart(path: Path) -> Rows | None:
    """Return the tiles of a picture that `trainers.figure.draw_predictions` drew; none of any other picture."""
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
    spans = [*zip(edges[::2], edges[1::2], strict=True)]
    if len({bottom - top for top, bottom in spans}) != 1:
        return None
    lefts = {name: GAP + column * (width + GAP) for column, name in enumerate(COLUMNS)}
    return [{name: sheet[top:bottom, left : left + width] for name, left in lefts.items()} for top, bottom in spans]


def _grid(record: AblationRecord, name: str, column: str, words: str, tiles: Sequence[tuple[Outcome, Rows]]) -> Figure:
    runs, first = [run for run, _ in tiles], tiles[0][1]
    titles = [*SHARED, *(run.variant for run in runs)]
    height, width = first[0]["image"].shape[:2]
    table = [[first_row[shared] for shared in SHARED] for first_row in first]
    for index, tiles_of_image in enumerate(table):
        tiles_of_image += [rows[index][column] for _, rows in tiles]
    classes = record.ablation.request.classes

    def paint(canvas: Any, theme: Theme) -> None:
        canvas.get_layout_engine().set(h_pad=0.1)
        axes = canvas.subplots()
        axes.imshow(compose(table, to_rgb(theme.paper)), interpolation="nearest")
        for place, title in enumerate(titles):
            axes.text(place * (width + APART), -0.05 * height, textwrap.fill(title, 14), fontsize=7.5, va="bottom",
                      color=theme.ink if place >= len(SHARED) else theme.muted)  # fmt: skip
        axes.set_axis_off()
        if len(classes) <= NAMED:
            legend(canvas, class_handles(classes, theme))

    caption = f"{words}, with seed {runs[0].seed}, on the first images of dev. Rows are images."
    alt = f"Grid of {len(table)} images: image, truth and {column} of {', '.join(titles[len(SHARED) :])}."
    ratio = (len(table) * (height + APART)) / (len(titles) * (width + APART))
    data = Data(["variant", "run", "seed"], [[run.variant, run.number, run.seed] for run in runs])
    return Figure(name, caption, alt, paint, data, (7.6, 7.4 * ratio + 0.55 + 0.2 * -(-len(classes) // 5)))


def compose(table: Sequence[Sequence[Pixels]], paper: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the tiles of a table of rows in one image, [H, W, 3] in [0, 1], with gaps of the colour of the paper."""
    height, width = (size + APART for size in table[0][0].shape[:2])
    sheet = np.tile(np.asarray(paper, np.float64), (len(table) * height - APART, len(table[0]) * width - APART, 1))
    for row, tiles in enumerate(table):
        for column, tile in enumerate(tiles):
            sheet[row * height :, column * width :][: tile.shape[0], : tile.shape[1]] = tile / 255
    return sheet
