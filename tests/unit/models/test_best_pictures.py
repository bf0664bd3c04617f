"""The best trial of a search that keeps its checkpoint is shown with its predictions."""

import shutil
from pathlib import Path

import pytest
from trained_runs import TrainedRuns

from harness.reporting.best import draw_best
from harness.reporting.record import read_or_rebuild, read_record
from harness.reporting.reports import search_document
from harness.run_folder import LATEST, PICTURE, checkpoint_folder


@pytest.fixture
def search(trained: TrainedRuns, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.storage / "search-001", tmp_path / "search-001"))


def test_it_is_drawn_from_its_checkpoint(trained: TrainedRuns, search: Path) -> None:
    draw_best(search, read_or_rebuild(search))
    picture = checkpoint_folder(search / "trials", trained.best) / PICTURE
    assert picture.read_bytes().startswith(b"\x89PNG")
    document = search_document(read_record(search))
    assert picture in [one.path for one in document.pictures]
    assert "Predictions" in [section.title for section in document.sections]


def test_without_a_checkpoint_or_with_a_broken_one_there_is_none(trained: TrainedRuns, search: Path) -> None:
    checkpoint = checkpoint_folder(search / "trials", trained.best) / LATEST
    for damage in (lambda: checkpoint.write_bytes(b"?"), checkpoint.unlink):
        damage()
        draw_best(search, read_or_rebuild(search))
        assert not checkpoint.with_name(PICTURE).exists()
        assert "Predictions" not in [section.title for section in search_document(read_record(search)).sections]
