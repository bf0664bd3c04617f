"""Scenes composed from scikit-learn's handwritten digits: real input that needs no download.

The digits are split by sample before anything is composed. Scene i of a split is a pure function of (seed, split, i):
its numbers are row i of one stream of uniforms, so asking for more scenes leaves the earlier ones as they are.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import DigitsData
from trainers.data.digits import Split

Pool = Literal["train", "dev", "val"]

POOL_SHARES: dict[Pool, float] = {"val": 0.20, "dev": 0.15, "train": 0.65}
"""Shares of the 1797 digits; disjoint."""
POOL_OF: dict[Split, Pool] = {"labelled": "train", "unlabelled": "train", "dev": "dev", "val": "val"}
"""Which digits a split's scenes are made of."""

_STREAM: dict[Split, int] = {"labelled": 0, "unlabelled": 1, "dev": 2, "val": 3}
_CELL_DRAWS = 8  # filled, digit, size, top, left, three colour channels
_NODES = 4  # the background is drawn at 4 x 4 points and interpolated
_BACKGROUND_DRAWS = 4 * _NODES * _NODES  # brightness, and each channel's deviation from it
_STROKE = 0.5  # opacity above which a pixel belongs to the stroke
_CHUNK_PIXELS = 2**21  # scenes composed at once: bounds the memory of large scenes


class _Digits(NamedTuple):
    """`opacity` float32 [1797, 8, 8] in [0, 1] and `digit` int64 [1797] in 0 to 9."""

    opacity: Tensor
    digit: Tensor


def digit_pools(seed: int) -> dict[Pool, NDArray[np.int64]]:
    """Return which of the 1797 samples make up each pool: sorted indices, disjoint, drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(_digits().digit))
    pools: dict[Pool, NDArray[np.int64]] = {}
    start = 0
    for pool, share in POOL_SHARES.items():
        stop = len(order) if pool == "train" else start + round(share * len(order))
        pools[pool] = np.sort(order[start:stop])
        start = stop
    return pools


def compose(data: DigitsData, split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` scenes of `split`: images uint8 [count, 3, S, S], labels uint8 [count, S, S]."""
    pool = torch.from_numpy(digit_pools(data.seed)[POOL_OF[split]])
    images = torch.empty(count, 3, data.image_size, data.image_size, dtype=torch.uint8)
    labels = torch.empty(count, data.image_size, data.image_size, dtype=torch.uint8)
    for start, uniforms in _uniforms(data, split, count):
        rows = slice(start, start + len(uniforms))
        images[rows], labels[rows] = _compose_chunk(data, pool, uniforms)
    return images, labels


def _uniforms(data: DigitsData, split: Split, count: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first scene, float64 [n, draws]) until `count` scenes have their numbers.

    The stream is read row by row, so the size of the chunks and `count` do not change a scene's numbers.
    """
    draws = _CELL_DRAWS * data.grid**2 + _BACKGROUND_DRAWS
    chunk = max(1, _CHUNK_PIXELS // data.image_size**2)
    rng = np.random.default_rng([data.seed, _STREAM[split]])
    for start in range(0, count, chunk):
        yield start, torch.from_numpy(rng.random((min(chunk, count - start), draws)))


def _compose_chunk(data: DigitsData, pool: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    n, grid = len(uniforms), data.grid
    split_at = _CELL_DRAWS * grid**2
    cells = uniforms[:, :split_at].reshape(n * grid * grid, _CELL_DRAWS)
    filled = cells[:, 0] < data.fill
    sample = pool[(cells[:, 1] * len(pool)).long()]
    opacity = _render(data, _digits().opacity[sample], cells[:, 2:5]) * filled[:, None, None]
    # The label is a pixel wider than the stroke, and stays in its cell.
    stroke = F.max_pool2d((opacity > _STROKE).float()[:, None], 3, stride=1, padding=1)[:, 0]
    label = stroke * (1 + _digits().digit[sample])[:, None, None]
    tint = 1 - 0.25 * cells[:, 5:8].float()
    tint = tint / tint.amax(1, keepdim=True)

    cover = _tile(data, opacity)[:, None]
    colour = tint.reshape(n, grid, grid, 3).permute(0, 3, 1, 2)
    cell = data.image_size // grid
    colour = _pad(data, colour.repeat_interleave(cell, 2).repeat_interleave(cell, 3))
    image = torch.lerp(_background(data, uniforms[:, split_at:]), colour, cover)
    return (image * 255).round().to(torch.uint8), _tile(data, label).to(torch.uint8)


def _render(data: DigitsData, digits: Tensor, draws: Tensor) -> Tensor:
    """Return each 8 x 8 digit, magnified and placed in a cell: opacity float32 [cells, C, C] in [0, 1].

    `draws` float64 [cells, 3] in [0, 1) choose size, top and left; sizes and places are whole pixels.
    """
    cell = data.image_size // data.grid
    low, high = data.digit_size
    size = low + (draws[:, 0] * (high - low + 1)).floor()
    corner = (draws[:, 1:3] * (cell - size + 1)[:, None]).floor()
    centres = torch.arange(cell, dtype=torch.float64) + 0.5
    places = 2 * (centres - corner[:, :, None]) / size[:, None, None] - 1  # [cells, (y, x), C], the digit is -1 to 1
    rows, columns = places[:, 0, :, None], places[:, 1, None, :]
    grid = torch.stack([columns.expand(-1, cell, cell), rows.expand(-1, cell, cell)], -1).float()
    return F.grid_sample(digits[:, None], grid, mode="bicubic", align_corners=False)[:, 0].clamp(0, 1)


def _background(data: DigitsData, uniforms: Tensor) -> Tensor:
    """Return smooth, slightly coloured backgrounds float32 [n, 3, S, S] whose brightest value is `clutter`."""
    nodes = uniforms.float().reshape(-1, 4, _NODES, _NODES)
    coloured = 0.6 * nodes[:, :1] + 0.4 * nodes[:, 1:]
    smooth = F.interpolate(coloured, size=data.image_shape, mode="bilinear", align_corners=True)
    return data.clutter * smooth / smooth.amax((1, 2, 3), keepdim=True)


def _tile(data: DigitsData, cells: Tensor) -> Tensor:
    """Lay cells [n * G * G, C, C] out as scenes [n, S, S]."""
    cell, grid = cells.shape[-1], data.grid
    scenes = cells.reshape(-1, grid, grid, cell, cell).transpose(2, 3).reshape(-1, grid * cell, grid * cell)
    return _pad(data, scenes)


def _pad(data: DigitsData, scenes: Tensor) -> Tensor:
    """Fill up to the size of a scene where the cells do not divide it."""
    rest = data.image_size - scenes.shape[-1]
    return F.pad(scenes, (0, rest, 0, rest))


@lru_cache(maxsize=1)
def _digits() -> _Digits:
    # scikit-learn's file without scikit-learn, whose import takes a second of every process that reads digits.
    package = find_spec("sklearn")
    with gzip.open(Path(str(package and package.origin)).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    opacity = torch.from_numpy(rows[:, :-1].reshape(-1, 8, 8) / 16)
    return _Digits(opacity, torch.from_numpy(rows[:, -1].astype(np.int64)))
