"""Weak maps of Cityscapes from stereo: ground and obstacles, by disparity alone.

As in Sanberg, Dubbelman and de With (ITSC 2015) disparity stands in for labels. The ground is the line that most pixels
lie on in the v-disparity image (Labayrade, Aubert and Tarel, IV 2002): with the baseline B and the height H of the
camera above a plane, a point of height y in row v has the disparity d with v - v_0 = d (H - y) / B, so the plane itself
is the line d(v) = (v - v_0) B / H, and 1 - d(v) / d = y / H says how high above it a pixel is. No calibration is read.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.config import IGNORE, CityscapesData, DigitsData, FileData
from trainers.data.files import Pair, count_values, decode, open_image
from trainers.data.splits import open_reader, open_splits
from trainers.data.threads import in_threads
from trainers.data.weak import weak_coding, weak_path
from trainers.drafts import draft_of, sweep
from trainers.errors import DataError, UsageError

GROUND, OBSTACLE = "ground", "obstacle"
"""Names that `data.weak_groups` must have."""
LEAST = 0.02
"""Share of an image's pixels that must lie on the ground for it to be found."""
_ROWS, _HORIZONS, _BOTTOMS = 256, 64, 128  # of the coarse search

Disparity = NDArray[np.float32]


class GroundRule(NamedTuple):
    """When a pixel is ground, or an obstacle."""

    tolerance: float = 1.0
    """t: pixels of disparity that the ground may be off its line."""
    height: float = 0.25
    """h: height of an obstacle above the ground, at least, as a share of the camera's height; that is some 1.2 m."""


class RoadLine(NamedTuple):
    """Disparity of the ground in row v: slope v + offset, in pixels."""

    slope: float
    offset: float


class Made(NamedTuple):
    """What was done to make the maps of all training images."""

    folder: Path
    written: int
    kept: int
    """That were there."""
    without_ground: int
    """Of those written, how many are 255 throughout."""


class Agreement(NamedTuple):
    """What weak maps say of a group."""

    name: str
    share: float
    """Of all pixels of the maps of all training images."""
    accuracy: float | None
    """Share of the pixels of the labelled images, of those said to be of the group and with a label, which are; none
    where there are none."""


def read_disparity(path: Path) -> Disparity:
    """Read disparities (in pixels) of Cityscapes, float32 [H, W]: (p - 1) / 256 of 16-bit values p, NaN where p is 0.

    Raises:
        DataError: the file cannot be decoded, or has not 16 bits a pixel.
    """
    image = open_image(path)
    values = np.asarray(image)
    if image.mode not in ("I;16", "I;16B", "I"):
        raise DataError(f"disparities must have 16 bits a pixel, got mode {image.mode} in {path}: unpack them again")
    disparity: Disparity = np.where(values > 0, (values.astype(np.float32) - 1) / 256, np.float32(np.nan))
    return disparity


def road_line(disparity: Disparity, tolerance: float) -> RoadLine | None:
    """Return the line of the ground, or none where fewer than `LEAST` of the pixels lie on the best one.

    The best of a grid of lines by its pixels in the v-disparity image, then least squares over the pixels near to it.
    Horizons lie in the upper four fifths of the image; a camera that is rolled, and a road that bends upwards, are off
    the line.

    Args:
        disparity: [H, W] in pixels, NaN where unknown.
        tolerance: t, in pixels.
    """
    height = len(disparity)
    v, _ = np.nonzero(~np.isnan(disparity))
    d = disparity[~np.isnan(disparity)]
    least = LEAST * disparity.size
    if d.size < least or d.max() <= 2 * tolerance:
        return None
    step = -(-height // _ROWS)
    bins, rows = (d / tolerance).astype(np.int64), -(-height // step)
    columns = int(bins.max()) + 1
    counts = np.bincount(v // step * columns + bins, minlength=rows * columns).reshape(rows, columns)
    padded = np.pad(counts, ((0, 0), (1, 1)))
    near = padded[:, :-2] + counts + padded[:, 2:]
    middle = np.arange(rows) * step + (step - 1) / 2
    horizons = np.linspace(0, 0.8 * height, _HORIZONS)[:, None]
    bottoms = np.linspace(2 * tolerance, d.max(), _BOTTOMS)[:, None, None]
    at = np.floor(bottoms * (middle - horizons) / (height - horizons) / tolerance).astype(np.int64)
    votes = np.where((at >= 0) & (at < columns), near[np.arange(rows), at.clip(0, columns - 1)], 0).sum(-1)
    bottom, horizon = np.unravel_index(votes.argmax(), votes.shape)
    slope = float(bottoms[bottom, 0, 0]) / (height - float(horizons[horizon, 0]))
    line = RoadLine(slope, -slope * float(horizons[horizon, 0]))
    for width in (3, 2, 1, 1, 1):
        on = np.abs(d - (line.slope * v + line.offset)) <= width * tolerance
        if on.sum() < least or np.ptp(v[on]) == 0:
            return None
        line = RoadLine(*np.polynomial.Polynomial.fit(v[on], d[on], 1).convert().coef[::-1].tolist())
    return line if line.slope > 0 else None


def ground_and_obstacles(
    disparity: Disparity, line: RoadLine, rule: GroundRule
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where the ground and where obstacles are, both bool [H, W]; neither where it cannot be told.

    Ground is off its line by t at most; an obstacle is h above it or more. Both are told only where t pixels of
    disparity are less than h in height: what is farther away is unknown, and so is the sky.

    Args:
        disparity: [H, W] in pixels, NaN where unknown.
        line: Of the ground.
        rule: t and h.
    """
    above = disparity - (line.slope * np.arange(len(disparity)) + line.offset)[:, None]
    told = rule.height * disparity >= rule.tolerance
    ground = told & (np.abs(above) <= rule.tolerance)
    return ground, told & (above >= rule.height * disparity) & ~ground


def make_weak_maps(
    data: DigitsData | FileData, rule: GroundRule, force: bool, counting: Callable[[int], Callable[[], None]]
) -> Made:
    """Write the weak map of each training image that has none, or with `force` of all; each whole or not at all.

    The rule is kept beside the maps, so that no other one is mixed with it.

    Args:
        data: Cityscapes, with groups `ground` and `obstacle`.
        rule: t and h.
        force: Whether maps that are there are made anew.
        counting: Takes the number of images, and returns what is called for each that is done.

    Raises:
        UsageError: t or h is out of range, or the maps that are there were made in another way.
        DataError: the data are others, or disparities are missing or cannot be read.
    """
    if not rule.tolerance > 0 or not 0 < rule.height < 1:
        raise UsageError(
            f"--tolerance must be above 0 and --height between 0 and 1, got {rule.tolerance:g} and {rule.height:g}: "
            "change them"
        )
    cityscapes, values = _with_disparity(data)
    pairs = open_reader(cityscapes).training().pairs
    targets = [weak_path(cityscapes, pair) for pair in pairs]
    missing = [path for pair in pairs if not (path := disparity_path(cityscapes, pair)).is_file()]
    if missing:
        raise DataError(
            f"every training image must have its disparity, got {len(missing)} of {len(pairs)} without, the first "
            f"{missing[0]}: unpack disparity_trainvaltest.zip of https://www.cityscapes-dataset.com/downloads/ there"
        )
    folder, there = cityscapes.root / "weak", [path for path in targets if path.is_file()]
    _keep_rule(folder / "rule.json", rule._asdict() | {"values": values}, there, force)
    sweep(folder)
    todo = [at for at, path in enumerate(targets) if not path.is_file()]
    lock, done, without_ground = threading.Lock(), counting(len(todo)), 0

    def make(index: int) -> None:
        nonlocal without_ground
        disparity = read_disparity(disparity_path(cityscapes, pairs[todo[index]]))
        line = road_line(disparity, rule.tolerance)
        weak = np.full(disparity.shape, IGNORE, np.uint8)
        if line is not None:
            for name, where in zip((GROUND, OBSTACLE), ground_and_obstacles(disparity, line, rule), strict=True):
                weak[where] = values[name]
        with draft_of(targets[todo[index]]) as draft:
            Image.fromarray(weak).save(draft, format="PNG")
        with lock:
            without_ground += line is None
            done()

    in_threads(make, range(len(todo)))
    return Made(folder, len(todo), len(pairs) - len(todo), without_ground)


def compare_weak_maps(data: FileData) -> tuple[Agreement, ...]:
    """Return how much weak maps say, and how right that is where images are labelled; the last is what is unknown.

    Only the masks of the labelled images are read.

    Raises:
        DataError: a map or mask cannot be read.
    """
    coding, reader, groups = weak_coding(data), open_reader(data), getattr(data, "weak_groups", None) or ()
    pairs = {pair.name: pair for pair in reader.training().pairs}
    maps = {name: pair._replace(mask=weak_path(data, pair)) for name, pair in pairs.items()}
    pixels = count_values(coding, [*maps.values()]).pixels
    labelled, lock = open_splits(data).labelled.names, threading.Lock()
    class_group = np.full(IGNORE + 1, IGNORE)
    class_group[: len(data.classes)] = getattr(data, "class_groups", ())
    said, right = np.zeros(IGNORE + 1, np.int64), np.zeros(IGNORE + 1, np.int64)

    def count(index: int) -> None:
        name = labelled[index]
        truth, weak = (part[1].numpy() for part in (decode(reader.coding, pairs[name]), decode(coding, maps[name])))
        weak, of_truth = weak[truth != IGNORE], class_group[truth[truth != IGNORE]]
        with lock:
            said[:] += np.bincount(weak, minlength=IGNORE + 1)
            right[:] += np.bincount(weak[weak == of_truth], minlength=IGNORE + 1)

    in_threads(count, range(len(labelled)))
    shares = pixels / max(1, pixels.sum())
    return (
        *(Agreement(name, float(shares[at]), float(right[at] / said[at]) if said[at] else None)
          for at, (name, _) in enumerate(groups)),
        Agreement("(unknown)", float(shares[IGNORE]), None),
    )  # fmt: skip


def disparity_path(data: CityscapesData, pair: Pair) -> Path:
    """Return where the disparity of a training image lies: ROOT/disparity/train/CITY/NAME_disparity.png."""
    return data.root / "disparity" / "train" / pair.image.parent.name / f"{pair.name}_disparity.png"


def _with_disparity(data: DigitsData | FileData) -> tuple[CityscapesData, dict[str, int]]:
    """Return data that have disparity, with the values of the two groups."""
    if not isinstance(data, CityscapesData):
        raise DataError(
            f"weak maps are made of Cityscapes' disparity, data.name must be cityscapes, got {data.name}: write maps "
            "of a folder yourself, as trainers/README.md says, or take a preset of Cityscapes"
        )
    values = {name: at for at, (name, _) in enumerate(data.weak_groups or ()) if name in (GROUND, OBSTACLE)}
    if len(values) < 2:
        names = ", ".join(name for name, _ in data.weak_groups or ()) or "none"
        raise DataError(f"data.weak_groups must have groups {GROUND} and {OBSTACLE}, got {names}: name two so")
    return data, values


def _keep_rule(path: Path, rule: dict[str, object], there: list[Path], force: bool) -> None:
    """Write what the maps are made by; with `force` the maps that are there are removed first."""
    text = json.dumps(rule, sort_keys=True) + "\n"
    before = path.read_text(encoding="utf-8") if path.is_file() else "nobody knows how"
    if there and before != text and not force:
        raise UsageError(
            f"maps must be made in one way, got {text.strip()}, and {len(there)} that are there in {path.parent} were "
            f"made by {before.strip()}: give --force to make all anew, or the same --tolerance and --height"
        )
    for old in there if force else ():
        old.unlink()
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")
