"""Weak maps from disparity: a plane with boxes on it, whose disparity is known exactly, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from official_trees import cityscapes_tree
from PIL import Image

from harness.cli.main import run
from trainers.config import CityscapesData
from trainers.data import disparity
from trainers.data.disparity import GroundRule, RoadLine, ground_and_obstacles, read_disparity, road_line
from trainers.data.splits import open_splits
from trainers.errors import DataError

H, W, SLOPE, HORIZON = 128, 192, 0.5, 40
LINE = RoadLine(SLOPE, -SLOPE * HORIZON)
BOXES = [(30.0, 20, 60), (15.0, 90, 40), (9.0, 150, 30)]
"""Disparity, left column and width (in pixels) of boxes whose tops lie above the horizon."""


def scene(slope: float = SLOPE, noise: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Disparity of a plane and boxes on it, NaN in the sky; and 0 ground, 1 box, 2 sky."""
    rows = np.arange(H, dtype=np.float32)[:, None] * np.ones((1, W), np.float32)
    plane = slope * (rows - HORIZON)
    found, kind = np.where(plane > 0, plane, np.nan).astype(np.float32), np.where(plane > 0, 0, 2).astype(np.uint8)
    for d, left, width in sorted(BOXES):
        foot = round(d / slope + HORIZON)
        found[20:foot, left : left + width], kind[20:foot, left : left + width] = d, 1
    return found + np.random.default_rng(0).normal(0, noise, found.shape).astype(np.float32), kind


def write_disparity(path: Path, values: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.where(np.isnan(values), 0, np.round(np.nan_to_num(values) * 256) + 1).astype(np.uint16)
    Image.fromarray(stored).save(path)


def test_disparities_are_read_as_published(tmp_path: Path) -> None:
    path = tmp_path / "d.png"
    Image.fromarray(np.array([[0, 1, 257, 32769]], np.uint16)).save(path)
    np.testing.assert_array_equal(read_disparity(path), np.array([[np.nan, 0, 1, 128]], np.float32))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    with pytest.raises(DataError, match="disparities must have 16 bits a pixel, got mode L"):
        read_disparity(path)


@pytest.mark.parametrize("slope", [0.12, 0.5, 1.1])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_line_of_the_ground_is_found_among_boxes_and_noise(slope: float, noise: float) -> None:
    line = road_line(scene(slope, noise)[0], tolerance=1.0)
    assert line is not None
    for row in (60, H - 1):
        assert line.slope * row + line.offset == pytest.approx(slope * (row - HORIZON), abs=0.3)


def test_with_the_line_each_pixel_is_what_a_loop_says() -> None:
    values, _ = scene(noise=0.4)
    rule = GroundRule(1.0, 0.25)
    ground, obstacles = ground_and_obstacles(values, LINE, rule)
    for v, u in np.ndindex(H, W):
        d, of_plane = float(values[v, u]), SLOPE * (v - HORIZON)
        known = not np.isnan(d) and d > 0 and rule.tolerance / d <= rule.height  # t pixels are lower than h
        height = 1 - of_plane / d if known else np.nan  # as a share of the camera's
        is_ground = known and abs(d - of_plane) <= rule.tolerance
        assert (ground[v, u], obstacles[v, u]) == (is_ground, known and height >= rule.height and not is_ground)


def test_of_a_plane_with_boxes_ground_and_obstacles_are_known_and_only_what_is_low_or_far_is_not() -> None:
    values, kind = scene()
    line = road_line(values, 1.0)
    assert line is not None
    ground, obstacles = ground_and_obstacles(values, line, GroundRule(1.0, 0.25))
    above = 1 - SLOPE * (np.arange(H)[:, None] - HORIZON) / values  # height by that of the camera
    plainly = values >= 4.5  # t / h is 4
    assert (ground & (kind == 0))[plainly & (kind == 0)].mean() == 1.0
    assert (obstacles & (kind == 1))[plainly & (kind == 1) & (above >= 0.3)].mean() == 1.0
    assert not (obstacles & (kind != 1)).any()
    assert not (ground & (kind == 1) & (np.abs(above * values) > 1.5)).any()
    assert not (ground | obstacles)[kind == 2].any()


def test_where_there_is_no_ground_none_is_found() -> None:
    nothing = np.full((H, W), np.nan, np.float32)
    assert road_line(nothing, 1.0) is None
    nothing[:3, :3] = 20
    assert road_line(nothing, 1.0) is None
    assert road_line(np.full((H, W), 0.5, np.float32), 1.0) is None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Cityscapes of 9 training images; images and masks are the scene, except for one whose disparity is unknown."""
    cityscapes_tree(tmp_path)
    values, kind = scene()
    for image in sorted((tmp_path / "leftImg8bit" / "train").glob("*/*.png")):
        stem, city = image.stem.removesuffix("_leftImg8bit"), image.parent.name
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(image)
        ids = np.array([7, 26, 23], np.uint8)[kind]  # road, car, sky
        Image.fromarray(ids).save(tmp_path / "gtFine" / "train" / city / f"{stem}_gtFine_labelIds.png")
        unknown = stem == "ulm_000003_000019"
        path = tmp_path / "disparity" / "train" / city / f"{stem}_disparity.png"
        write_disparity(path, np.full_like(values, np.nan) if unknown else values)
    return tmp_path


def weak(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """The command's exit code, and its JSON object or its error."""
    settings = [f"data.root={root}", "data.labelled=3", "data.dev=2"]
    sets = [word for setting in settings for word in ("--set", setting)]
    code = run(["data", "weak", "cityscapes_css_186", *sets, *words, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if code == 0 else said.err


def test_the_command_writes_the_maps_and_says_how_right_they_are(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = weak(tree, capsys)
    assert code == 0
    assert (result["written"], result["kept"], result["without_ground"]) == (9, 0, 1)
    maps = sorted((tree / "weak" / "train").glob("*/*_weak.png"))
    assert len(maps) == 9
    values, kind = scene()
    line = road_line(values, 1.0)
    assert line is not None
    ground, obstacles = ground_and_obstacles(values, line, GroundRule())
    expected = np.where(ground, 0, np.where(obstacles, 1, 255))
    np.testing.assert_array_equal(np.asarray(Image.open(maps[0])), expected)
    shares = {group["name"]: group["share"] for group in result["groups"]}
    assert shares["ground"] == pytest.approx(8 / 9 * ground.mean())
    assert shares["(unknown)"] == pytest.approx(1 - 8 / 9 * (ground | obstacles).mean())
    right = {group["name"]: group["accuracy"] for group in result["groups"]}
    assert right["obstacle"] == pytest.approx((kind[obstacles] == 1).mean())
    assert right["ground"] == pytest.approx((kind[ground] == 0).mean())
    data = CityscapesData(root=tree, labelled=3, dev=2)
    from trainers.data.weak import open_weak

    source = open_weak(data)
    assert source.names == open_splits(data).unlabelled.names
    assert set(source.fetch([0]).labels.unique().tolist()) == {0, 1, 255}


def test_maps_that_are_there_are_kept_and_never_mixed_with_others(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak(tree, capsys)
    maps = sorted((tree / "weak" / "train").glob("*/*_weak.png"))
    times = [path.stat().st_mtime_ns for path in maps]
    maps[0].unlink()
    assert weak(tree, capsys)[1]["written"] == 1
    assert [path.stat().st_mtime_ns for path in maps[1:]] == times[1:]
    code, error = weak(tree, capsys, "--height", "0.5")
    assert code == 2
    assert error.startswith("s4: maps must be made in one way, got")
    assert weak(tree, capsys, "--height", "0.5", "--force")[1]["written"] == 9
    assert weak(tree, capsys, "--height", "0.5")[1]["kept"] == 9


def test_an_interrupted_command_leaves_whole_maps_and_goes_on(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = disparity.read_disparity, []

    def interrupted(path: Path) -> Any:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setenv("S4_DECODING_THREADS", "1")
    monkeypatch.setattr(disparity, "read_disparity", interrupted)
    assert weak(tree, capsys)[0] == 130
    assert not list((tree / "weak").rglob("*.tmp"))
    monkeypatch.setattr(disparity, "read_disparity", read)
    result = weak(tree, capsys)[1]
    assert result["kept"] >= 2
    assert result["kept"] + result["written"] == 9


def test_what_cannot_be_made_is_refused_in_one_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (("--tolerance", "0"), "s4: --tolerance must be above 0 and --height between 0 and 1, got 0 and 0.25"),
        (("--set", "data.weak_groups={road: [road]}"), "s4: data.weak_groups must have groups ground and obstacle"),
    ):
        code, error = weak(tree, capsys, *words)
        assert (code, len(error.splitlines())) == (2, 1)
        assert error.startswith(message)
    next((tree / "disparity").rglob("*.png")).unlink()
    code, error = weak(tree, capsys)
    assert code == 2
    assert "every training image must have its disparity, got 1 of 9 without" in error
    assert run(["data", "weak", "digits_css"]) == 2
    assert "data.name must be cityscapes, got digits" in capsys.readouterr().err
