from __future__ import annotations

from pathlib import Path

from harness.search.keeper import CheckpointKeeper, checkpoint_folder
from harness.trials import Trial, TrialState


def end(keeper: CheckpointKeeper, root: Path, number: int, state: TrialState, value: float = 0.0) -> None:
    checkpoint_folder(root, number).mkdir()
    keeper.on_end(Trial(number, {}, {}, state=state, metrics={"dev/miou": value}))


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_best_complete_trials_are_kept(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, "dev/miou", keep=2)
    for number, value in enumerate([0.3, 0.1, 0.4, 0.2], start=1):
        end(keeper, tmp_path, number, TrialState.COMPLETE, value)
    assert left(tmp_path) == ["00001", "00003"]


def test_the_complete_baseline_is_kept_beside_them(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, "dev/miou", keep=1)
    for number, value in enumerate([0.1, 0.2, 0.3]):
        end(keeper, tmp_path, number, TrialState.COMPLETE, value)
    assert left(tmp_path) == ["00000", "00002"]


def test_of_equals_the_earlier_is_kept(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, "dev/miou", keep=1)
    end(keeper, tmp_path, 1, TrialState.COMPLETE, 0.5)
    end(keeper, tmp_path, 2, TrialState.COMPLETE, 0.5)
    assert left(tmp_path) == ["00001"]


def test_stopped_and_failed_trials_keep_nothing(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, "dev/miou", keep=2)
    end(keeper, tmp_path, 0, TrialState.PRUNED, 0.9)
    end(keeper, tmp_path, 1, TrialState.FAIL, 0.9)
    assert left(tmp_path) == []


def test_a_trial_that_left_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    CheckpointKeeper(tmp_path, "dev/miou", keep=0).on_end(Trial(0, {}, {}, state=TrialState.FAIL))
