"""Pictures of a training: what its model makes of images, and how its representation space came about."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainers.checkpoint import load_checkpoint
from trainers.compute import forward
from trainers.config import IGNORE, TrainConfig
from trainers.css.prototypes import own_class
from trainers.css.pseudo_labels import pseudo_labels, upsample
from trainers.data.source import ImageSource
from trainers.data.splits import open_splits
from trainers.drafts import draft_of
from trainers.loader import to_images
from trainers.local_run import LocalRun
from trainers.snapshots import Snapshot
from trainers.state import TrainState

LABELS = ("truth", "prediction", "logit labels", "representation labels", "mix: both agree")
MAPS = ("confidence", "similarity")
COLUMNS = ("image", *LABELS, *MAPS)
PAPER, INK, IGNORED = (255, 255, 255), (30, 30, 30), (225, 225, 225)
GAP, HEADER, STRIP = 6, 26, 40
REPORTS, ACROSS = 6, 3
"""Reports in the picture of the representation space, at most, and those in a row of it."""
ANCHORS = (
    (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
    (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
)  # fmt: skip
"""Of viridis, evenly spaced: equal steps of a value look like equal steps, in grey and to the colour-blind, too."""

Pixels = NDArray[np.uint8]


class _Panels(NamedTuple):
    """Panels of one image, beside the image and its truth."""

    labels: list[Tensor]
    """Prediction, both pseudo-labels and where they agree, [H, W]; 255 is ignored."""
    maps: list[Tensor]
    """Confidence and similarity indicator, [H, W] in [0, 1]."""


def palette(num_classes: int) -> Pixels:
    """Return [256, 3] uint8: class 0 dark, the others spread over hue and brightness, 255 light grey."""
    colours = np.full((256, 3), IGNORED, dtype=np.uint8)
    colours[0] = (40, 42, 54)
    for index in range(1, num_classes):
        hue = (index - 1) * 0.618034 % 1.0
        value = (0.95, 0.75)[index % 2]
        colours[index] = [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.65, value)]
    return colours


def colormap(values: NDArray[np.floating]) -> Pixels:
    """Return colours [..., 3] of values in [0, 1], from dark violet over green to yellow; others are clipped."""
    places = np.linspace(0.0, 1.0, len(ANCHORS))
    channels = [np.interp(values, places, channel) for channel in np.array(ANCHORS).T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay(image: Pixels, label: Pixels, num_classes: int, strength: float = 0.55) -> Pixels:
    """Return the image [H, W, 3] with the colours of its labels [H, W] laid over it; as it was where a label is 255.

    Args:
        image: RGB.
        label: a class, or 255.
        num_classes: K.
        strength: of the colours, in [0, 1].
    """
    mixed = (1 - strength) * image + strength * palette(num_classes)[label]
    blended: Pixels = np.where((label == IGNORE)[..., None], image, mixed.round().astype(np.uint8))
    return blended


@torch.no_grad()
def draw_predictions(state: TrainState, source: ImageSource, config: TrainConfig, path: Path, count: int = 5) -> None:
    """Write a PNG with a row for each of the first `count` images of a source whose masks are known.

    Ignored pixels are light grey: in the truth, where there is no label; in the mix, where the two spaces disagree.
    The last two columns are the confidence j_lgt (Eq. 1) and the similarity indicator of the nearest prototype (Eq. 5).
    Their colours begin at 0; the header says where they end, at 1 or, where no value comes near it, at 0.5, 0.2 or 0.1.
    Runs on the same splits show the same images.
    """
    samples = source.fetch(range(min(count, len(source))))
    colours = palette(config.num_classes)
    rows, panels = [], []
    for image, mask, (height, width) in zip(samples.images, samples.labels, samples.sizes.tolist(), strict=True):
        image, mask = image[:, :height, :width], mask[:height, :width]
        panels.append(_panels(state, image, config))
        labels = [colours[_bytes(label)] for label in (mask, *panels[-1].labels)]
        rows.append([image.permute(1, 2, 0).numpy(), *labels])
    ends = [_end(max(float(panel.maps[column].max()) for panel in panels)) for column in range(len(MAPS))]
    for row, panel in zip(rows, panels, strict=True):
        row += [colormap(values.cpu().numpy() / end) for values, end in zip(panel.maps, ends, strict=True)]
    with draft_of(path) as draft:
        _compose(rows, ends).save(draft, format="PNG")


def draw_checkpoint(config: TrainConfig, checkpoint: Path, path: Path, count: int = 5) -> None:
    """Write the picture of a saved state on the first images of the dev split.

    Where the state has snapshots, `representations.png` is written beside it.

    Raises:
        DataError: the checkpoint cannot be read or is another config's.
    """
    state = TrainState(config, LocalRun())
    saved = load_checkpoint(checkpoint)
    state.load_state_dict({name: value for name, value in saved.items() if name != "optimizer"})
    draw_predictions(state, open_splits(config.data).dev, config, path, count)
    if state.snapshots:
        draw_representations(state.snapshots, config.data.classes, path.with_name("representations.png"))


def principal_axes(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [D], the first two principal axes [D, 2] of rows [P, D], and their shares of the variance [2].

    An axis points to where its largest coordinate is positive.
    """
    mean = pixels.mean(dim=0)
    _, scales, axes = torch.linalg.svd(pixels - mean, full_matrices=False)
    axes, shares = axes[:2].T, scales.square() / scales.square().sum().clamp(min=1e-12)
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return mean, axes * largest.sign(), shares[:2]


def draw_representations(snapshots: Sequence[Snapshot], classes: Sequence[str], path: Path) -> None:
    """Write a PNG: pixels as dots and prototypes as rings on the principal axes of the last report, at up to 6 reports.

    All panels have the same axes and the same scale, so that a move from one to the next is a move in the space.
    """
    shown = [snapshots[place] for place in _with_ends(REPORTS, len(snapshots))]
    mean, axes, shares = principal_axes(shown[-1].pixels.float())
    colours = palette(len(classes)) / 255
    places = [[(rows.float() - mean) @ axes for rows in (each.pixels, each.prototypes)] for each in shown]
    span = torch.cat([pixels for pixels, _ in places]).aminmax(dim=0)
    wide, high = (span.max - span.min).clamp(min=1e-6).tolist()
    across, down = min(ACROSS, len(shown)), -(-len(shown) // ACROSS)
    height = min(max(2.6 * high / wide, 1.0), 5.2)
    canvas = Figure(figsize=(2.6 * across, (height + 0.4) * down + 1.1), layout="constrained")
    panels = canvas.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat
    handles = {}
    for panel, snapshot, (pixels, prototypes) in zip(panels, shown, places, strict=False):
        panel.set_title(f"step {snapshot.step}", fontsize=9)
        panel.set_aspect("equal")
        panel.tick_params(labelsize=7)
        seen = snapshot.prototypes.abs().sum(dim=1) > 0
        for index in sorted(set(snapshot.labels.tolist())):
            dots = pixels[snapshot.labels == index]
            handles[index] = panel.scatter(*dots.T, s=6, color=colours[index], label=classes[index])
            if seen[index]:
                panel.scatter(
                    *prototypes[index], s=70, color=colours[index], edgecolor="black", linewidth=1.2, zorder=3
                )
    for panel in [*panels][len(shown) :]:
        panel.set_axis_off()
    words = ", ".join(f"axis {place}: {share:.0%}" for place, share in enumerate(shares.tolist(), start=1))
    canvas.suptitle(f"representations of dev pixels, principal axes of step {shown[-1].step} ({words})", fontsize=9)
    canvas.legend(
        handles=[handles[index] for index in sorted(handles)], loc="outside lower center", ncols=6, fontsize=8
    )
    with draft_of(path) as draft:
        canvas.savefig(draft, dpi=120, format="png", metadata={"Software": None})


def _with_ends(count: int, total: int) -> list[int]:
    """Return up to `count` of the places 0 to total - 1, evenly spaced, the first and the last among them."""
    if total <= count:
        return list(range(total))
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


def _panels(state: TrainState, image: Tensor, config: TrainConfig) -> _Panels:
    """Return the teacher's labels and maps of a stored image [3, H, W]."""
    inputs = to_images(image.unsqueeze(0), state.prototypes.values.device)
    dense = forward(state.teacher.eval(), inputs, config)
    size = (inputs.shape[-2], inputs.shape[-1])
    pseudo = pseudo_labels(dense, state.prototypes, config.css.indicator_temperature, size)
    prediction = upsample(dense.logits, size).argmax(dim=1)
    similarity = own_class(pseudo.similarity, pseudo.representation_label)
    labels = (prediction, pseudo.logit_label, pseudo.representation_label, pseudo.agreed)
    return _Panels([label[0] for label in labels], [values[0] for values in (pseudo.confidence, similarity)])


def _end(largest: float) -> float:
    """Return the end of a scale from 0 for values up to `largest`, in [0, 1]: coarse, so that most runs share it."""
    return next(end for end in (0.1, 0.2, 0.5, 1.0) if largest <= end or end == 1.0)


def _bytes(label: Tensor) -> Pixels:
    array: Pixels = label.cpu().numpy().astype(np.uint8)
    return array


def _compose(rows: list[list[Pixels]], ends: list[float]) -> Image.Image:
    """Return the rows as one image, below a header that says which value the brightest colour of each map means."""
    height, width = (max(row[0].shape[side] for row in rows) for side in (0, 1))
    scale = max(1, round(150 / width))
    cell_h, cell_w = height * scale, max(width * scale, 150)
    canvas = Image.new("RGB", (GAP + len(COLUMNS) * (cell_w + GAP), HEADER + len(rows) * (cell_h + GAP)), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    for column, name in enumerate(COLUMNS):
        left = GAP + column * (cell_w + GAP)
        draw.text((left, 6), name, fill=INK, font=font)
        if name in MAPS:
            _colour_bar(canvas, draw, left + cell_w, ends[MAPS.index(name)])
        for row, cells in enumerate(rows):
            tile = Image.fromarray(cells[column])
            tile = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
            canvas.paste(tile, (left, HEADER + row * (cell_h + GAP)))
    return canvas


def _colour_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw, right: int, end: float) -> None:
    """Draw in the header, up to `right`, the colours from 0 to the end of the scale."""
    font = ImageFont.load_default(size=11)
    left = right - round(draw.textlength(f"{end:g}", font=font)) - 2
    draw.text((left + 2, 7), f"{end:g}", fill=INK, font=font)
    canvas.paste(Image.fromarray(np.tile(colormap(np.linspace(0.0, 1.0, STRIP)), (9, 1, 1))), (left - STRIP - 1, 9))
    draw.text((left - STRIP - 10, 7), "0", fill=INK, font=font)
