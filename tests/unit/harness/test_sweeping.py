"""Drafts that a killed session left go when the next one begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from harness.gangs import jobs
from harness.tuning import run as tuning


@pytest.mark.parametrize(
    ("module", "begin"),
    [
        (jobs, lambda folder: jobs.run_jobs(jobs.Jobs(folder, MagicMock(), ()))),
        (tuning, lambda folder: tuning.run_search(tuning.Search(folder, MagicMock(), MagicMock(), MagicMock()))),
    ],
    ids=["trainings", "search"],
)
def test_a_session_begins_with_sweeping(
    module: Any, begin: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = tmp_path / "trials" / "00000" / ".next.pt.0123abcd.tmp"
    draft.parent.mkdir(parents=True)
    draft.touch()
    monkeypatch.setattr(module, "check_fit", MagicMock())
    monkeypatch.setattr(module, "check_nodes", MagicMock(side_effect=RuntimeError("far enough")))
    with pytest.raises(RuntimeError, match="far enough"):
        begin(tmp_path)
    assert not draft.exists()
