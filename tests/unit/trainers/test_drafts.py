"""Drafts: none is left of a writer that fails, one of a writer that is killed, and that one is swept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.run_folder import write_whole
from trainers.checkpoint import save_checkpoint
from trainers.drafts import draft_name, draft_of, held, left_over, sweep
from trainers.image_evaluation import ImageEvaluation, save_image_evaluation
from trainers.predict import write_png

EVALUATION = ImageEvaluation(np.zeros((1, 2, 2), np.int64), ("a",), ("x", "y"))
WRITERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": lambda path: save_checkpoint(path, {"x": torch.zeros(2)}),
    "text": lambda path: write_whole(path, "text"),
    "picture": lambda path: write_png(path, Image.new("P", (2, 2))),
    "evaluation": lambda path: save_image_evaluation(path, EVALUATION),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return WRITERS[request.param]


def killed(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process begin some work that dies where it would rename what it wrote."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", lambda *_: os._exit(9))
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_what_a_killed_writer_left_is_found_and_swept(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(lambda: write(tmp_path / "below" / "target"), monkeypatch)
    assert len(left_over(tmp_path)) == 1
    sweep(tmp_path)
    assert list((tmp_path / "below").iterdir()) == []


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    folder = draft_name(tmp_path / "report")
    folder.mkdir()
    with draft_of(tmp_path / "target") as draft, held(folder):
        assert left_over(tmp_path) == []
        sweep(tmp_path)
        draft.write_text("whole")
    assert (tmp_path / "target").read_text() == "whole"
    assert left_over(tmp_path) == [folder]


@pytest.mark.parametrize("name", ["notes.tmp", ".notes.tmp", ".latest.pt.mine.tmp", "latest.pt"])
def test_files_of_others_are_no_drafts(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_draft_of_an_earlier_version_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".next.pt.4711.tmp").touch()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
