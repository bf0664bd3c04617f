"""A picture of what a trained model sees: image, truth, prediction, and the pseudo-labels of both spaces."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainers.checkpoint import load_checkpoint
from trainers.config import TrainConfig
from trainers.css.pseudo_labels import pseudo_labels, upsample
from trainers.data.source import ImageSource
from trainers.data.splits import open_splits
from trainers.loader import to_images
from trainers.local_run import LocalRun
from trainers.models.forward import forward
from trainers.state import TrainState

COLUMNS = ("image", "truth", "prediction", "logit labels", "representation labels", "mix: both agree")
PAPER, INK, IGNORED = (255, 255, 255), (30, 30, 30), (225, 225, 225)
GAP, HEADER = 6, 26


def palette(num_classes: int) -> np.ndarray:
    """Return [256, 3] uint8: class 0 dark, the others spread over hue and brightness, 255 light grey."""
    colours = np.full((256, 3), IGNORED, dtype=np.uint8)
    colours[0] = (40, 42, 54)
    for index in range(1, num_classes):
        hue = (index - 1) * 0.618034 % 1.0
        value = (0.95, 0.75)[index % 2]
        colours[index] = [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.65, value)]
    return colours


@torch.no_grad()
def draw_predictions(state: TrainState, source: ImageSource, config: TrainConfig, path: Path, count: int = 5) -> None:
    """Write a PNG with a row for each of the first `count` images of a source whose masks are known.

    Ignored pixels are light grey: in the truth, where there is no label; in the mix, where the two spaces disagree.
    """
    samples = source.fetch(range(min(count, len(source))))
    colours = palette(config.num_classes)
    rows = []
    for image, mask, (height, width) in zip(samples.images, samples.labels, samples.sizes.tolist(), strict=True):
        image, mask = image[:, :height, :width], mask[:height, :width]
        maps = [mask, *_maps(state, image, config)]
        rows.append([image.permute(1, 2, 0).numpy(), *(colours[_bytes(label)] for label in maps)])
    path.parent.mkdir(parents=True, exist_ok=True)
    _sheet(rows).save(path)


def draw_checkpoint(config: TrainConfig, checkpoint: Path, path: Path) -> None:
    """Write the picture of a saved state on the first images of the dev split.

    Raises:
        DataError: the checkpoint cannot be read or is another config's.
    """
    state = TrainState(config, LocalRun())
    state.load_state_dict(load_checkpoint(checkpoint))
    draw_predictions(state, open_splits(config.data).dev, config, path)


def _maps(state: TrainState, image: Tensor, config: TrainConfig) -> list[Tensor]:
    """Return prediction, both pseudo-labels and where they agree, each [H, W], of a stored image [3, H, W]."""
    inputs = to_images(image.unsqueeze(0), state.prototypes.values.device)
    seen = forward(state.teacher, inputs, config)
    size = (inputs.shape[-2], inputs.shape[-1])
    labels = pseudo_labels(seen, state.prototypes, config.css.indicator_temperature, size)
    prediction = upsample(seen.logits, size).argmax(dim=1)
    return [maps.squeeze(0) for maps in (prediction, labels.logit_label, labels.representation_label, labels.agreed)]


def _bytes(label: Tensor) -> np.ndarray:
    array: np.ndarray = label.cpu().numpy().astype(np.uint8)
    return array


def _sheet(rows: list[list[np.ndarray]]) -> Image.Image:
    height, width = (max(row[0].shape[side] for row in rows) for side in (0, 1))
    scale = max(1, round(150 / width))
    cell_h, cell_w = height * scale, max(width * scale, 150)
    sheet = Image.new("RGB", (GAP + len(COLUMNS) * (cell_w + GAP), HEADER + len(rows) * (cell_h + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for column, name in enumerate(COLUMNS):
        left = GAP + column * (cell_w + GAP)
        draw.text((left, 6), name, fill=INK, font=font)
        for row, cells in enumerate(rows):
            tile = Image.fromarray(cells[column])
            tile = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, HEADER + row * (cell_h + GAP)))
    return sheet
