"""`s4 evaluate`: its numbers are those of training, its files are whole, and MLflow gets them once."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from trained_runs import TrainedRuns

from harness.cli.main import run
from harness.tracking.stores import connect_client, run_of
from trainers.data.splits import open_splits, open_val
from trainers.image_evaluation import load_image_evaluation


def evaluated(trained: TrainedRuns, capsys: pytest.CaptureFixture[str], out: Path, *words: str) -> dict[str, object]:
    """Run the command into `out` and return its JSON."""
    assert run(["evaluate", *words, "--out", str(out), "--json", *trained.options()]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("word", ["first", "search-001/0", "search-001/1"])
def test_dev_is_scored_as_training_scored_it(
    word: str, trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(trained, capsys, tmp_path / "out", word, "--split", "dev", "--no-pictures", "--no-record")
    assert found["miou"] == pytest.approx(trained.reports[word]["dev/miou"], abs=1e-9)
    per_class = {f"dev/iou/{row['name']}": row["iou"] for row in found["classes"] if row["iou"] is not None}
    said = {name: value for name, value in trained.reports[word].items() if name.startswith("dev/iou/")}
    assert per_class == pytest.approx(said, abs=1e-9)


def test_the_table_the_matrix_and_the_images_say_the_same(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    found = evaluated(trained, capsys, out, "first", "--no-pictures", "--no-record")
    assert {path.name for path in out.iterdir()} == {
        "evaluation.json", "per_class.csv", "confusion.csv", "per_image.npz",
    }  # fmt: skip
    held = load_image_evaluation(out / "per_image.npz")
    with (out / "confusion.csv").open() as lines:
        matrix = [[int(cell) for cell in row[1:]] for row in list(csv.reader(lines))[1:]]
    with (out / "per_class.csv").open() as lines:
        shares = {row["class"]: row["iou"] for row in csv.DictReader(lines)}
    assert matrix == held.total.tolist()
    assert found["pixel_accuracy"] == pytest.approx(sum(matrix[k][k] for k in range(11)) / (256 * 32 * 32))
    assert {name: float(text) if text else None for name, text in shares.items()} == {
        row["name"]: row["iou"] for row in found["classes"]
    }


def test_of_as_many_images_as_asked_for_masks_and_overlays_are_written(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    evaluated(trained, capsys, out, "first", "--pictures", "2", "--no-record")
    names = open_val(trained.config.data).names[:2]
    assert {path.stem for path in (out / "masks").iterdir()} == set(names)
    for path in (out / "overlays").iterdir():
        with Image.open(path) as both:
            assert both.size == (64, 32)
    with Image.open(out / "confusion.png") as matrix:
        assert matrix.format == "PNG"


def test_val_is_logged_to_the_run_once_and_leaves_it_ended(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [evaluated(trained, capsys, tmp_path / "out", "search-001/1", "--no-pictures") for _ in range(2)]
    client, run_id = connect_client(trained.uri), run_of(trained.uri, trained.storage / "search-001", 1)
    assert [one["run_id"] for one in found] == [run_id, run_id]
    [point] = client.get_metric_history(run_id, "val/miou")
    assert (point.value, point.step) == (found[0]["miou"], 6)
    assert client.get_run(run_id).info.status == "FINISHED"
    listed = {item.path for item in client.list_artifacts(run_id, "evaluation/val")}
    assert "evaluation/val/per_image.npz" in listed


def test_what_training_reported_of_dev_is_not_logged_again(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, run_id = connect_client(trained.uri), run_of(trained.uri, trained.storage / "first", 0)
    before = client.get_metric_history(run_id, "dev/miou")
    evaluated(trained, capsys, tmp_path / "out", "first", "--split", "dev", "--no-pictures")
    assert client.get_metric_history(run_id, "dev/miou") == before


def test_without_a_record_the_evaluation_is_there_all_the_same(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str], new_store: Callable[[Path], str]
) -> None:
    words = ["evaluate", "first", "--out", str(tmp_path / "out"), "--no-pictures", "--storage", str(trained.storage)]
    assert run([*words, "--tracking-uri", new_store(tmp_path / "other")]) == 0
    assert "not recorded" in capsys.readouterr().out
    assert (tmp_path / "out" / "evaluation.json").exists()


def folder_of_scenes(trained: TrainedRuns, folder: Path) -> Path:
    """Write the dev scenes as files."""
    source = open_splits(trained.config.data).dev
    samples = source.fetch(range(len(source)))
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, image, label in zip(source.names, samples.images, samples.labels, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "images" / f"{name}.png")
        Image.fromarray(label.numpy()).save(folder / "masks" / f"{name}.png")
    return folder


def test_a_folder_with_the_dev_images_is_scored_as_dev(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_scenes(trained, tmp_path / "mine")
    found = evaluated(
        trained, capsys, tmp_path / "out", "first", "--folder", str(folder), "--no-pictures", "--no-record"
    )
    assert found["split"] == "folder-mine"
    assert found["miou"] == pytest.approx(trained.reports["first"]["dev/miou"], abs=1e-9)


def test_a_folder_with_other_classes_is_refused_before_anything_is_written(
    trained: TrainedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_scenes(trained, tmp_path / "mine")
    mask = next((folder / "masks").iterdir())
    Image.new("L", (32, 32), 99).save(mask)
    out = tmp_path / "out"
    assert run(["evaluate", "first", "--folder", str(folder), "--out", str(out), *trained.options()]) == 2
    said = capsys.readouterr().err
    assert "mask values must be classes (0 to 10)" in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_folder_that_is_none_is_refused(trained: TrainedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "first", "--folder", "nowhere", *trained.options()]) == 2
    assert "must be a folder, got nowhere" in capsys.readouterr().err
