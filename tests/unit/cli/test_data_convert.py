"""`s4 data convert`: masks of COCO annotations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.cli.main import run

pytest.importorskip("pycocotools")

BOX = [2, 1, 8, 1, 8, 5, 2, 5]  # x, y of the corners: columns 2 to 7, rows 1 to 4


def coco(root: Path, **changes: Any) -> Path:
    """Two annotated images and one without: a polygon, a smaller one on it, run lengths and a crowd."""
    small, column = [2, 1, 4, 1, 4, 3, 2, 3], {"size": [6, 10], "counts": [12, 6, 42]}  # the third column
    shapes = [
        (1, 7, [small], 0),
        (1, 30, [BOX], 0),
        (2, 7, column, 0),
        (2, 30, {"size": [6, 10], "counts": [0, 6, 54]}, 1),
    ]
    content = {
        "images": [{"id": at, "file_name": f"some/n{at}.jpg", "width": 10, "height": 6} for at in (1, 2, 3)],
        "categories": [{"id": 30, "name": "road"}, {"id": 7, "name": "car"}],
        "annotations": [
            {"id": at, "image_id": image, "category_id": kind, "segmentation": shape, "iscrowd": crowded}
            for at, (image, kind, shape, crowded) in enumerate(shapes)
        ],
    }
    path = root / "instances.json"
    path.write_text(json.dumps(content | changes))
    return path


def convert(path: Path, out: Path) -> int:
    return run(["data", "convert", str(path), "--out", str(out), "--json"])


def test_instances_become_masks_of_class_indices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(coco(tmp_path), tmp_path / "masks") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["background", "car", "road"]
    assert (found["masks"], found["without"]) == (2, 1)
    first, second = np.zeros((6, 10), np.uint8), np.zeros((6, 10), np.uint8)
    first[1:5, 2:8], first[1:3, 2:4] = 2, 1
    second[:, 2], second[:, 0] = 1, 255
    for name, expected in (("n1", first), ("n2", second)):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"masks/{name}.png")), expected)
    assert len(list((tmp_path / "masks").iterdir())) == 2


@pytest.mark.parametrize("changes", [
    {"annotations": [{"id": 1, "image_id": 9, "category_id": 7, "segmentation": [BOX]}]}, {"images": None},
    {"categories": [{"id": 7, "name": "background"}]},
])  # fmt: skip
def test_other_content_is_refused_and_nothing_is_written(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(coco(tmp_path, **changes), tmp_path / "masks") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "masks").exists()


def test_masks_that_are_there_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/n1.png").touch()
    assert convert(coco(tmp_path), tmp_path / "masks") == 2
    assert "--out must be a new or an empty folder" in capsys.readouterr().err
