"""A run that is told to leave between two reports goes on, bit by bit, as if it had not been."""

from __future__ import annotations

from pathlib import Path

import torch

from trainers.checkpoint import save_checkpoint
from trainers.config import TrainConfig
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import apply_overrides
from trainers.presets import load_preset
from trainers.run import Checkpointable


class Leaving(LocalRun):
    """Leaves after a number of steps, as a gang does when its search is interrupted."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self._left = after

    def interrupted(self, state: Checkpointable) -> bool:
        self._left -= 1
        if self._left:
            return False
        assert self.latest is not None
        save_checkpoint(self.latest, state.state_dict())
        return True


def config() -> TrainConfig:
    return apply_overrides(
        load_preset("digits_css"),
        {
            "data.labelled": 8,
            "data.unlabelled": 8,
            "data.dev": 4,
            "schedule.steps": 8,
            "schedule.evaluate_every": 6,
            "schedule.labelled_batch": 2,
            "schedule.unlabelled_batch": 2,
        },
    )


def test_training_that_was_interrupted_between_reports_ends_in_the_same_state(tmp_path: Path) -> None:
    whole = train(config(), LocalRun())
    assert train(config(), Leaving(tmp_path, after=3)).step == 3
    resumed = train(config(), LocalRun(tmp_path))
    expected, weights = whole.teacher.state_dict(), resumed.teacher.state_dict()
    assert resumed.step == 8
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
