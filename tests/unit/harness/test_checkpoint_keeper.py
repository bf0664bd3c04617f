from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.run_folder import checkpoint_folder
from harness.trials import Trial, TrialState
from harness.tuning.objectives import Objective
from harness.tuning.retention import CheckpointRetention

MIOU = Objective("dev/miou", "max")


def end(keeper: CheckpointRetention, root: Path, number: int, state: TrialState, value: float = 0.0) -> None:
    checkpoint_folder(root, number).mkdir()
    keeper.on_end(Trial(number, {}, {}, state=state, metrics={"dev/miou": value}))


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_best_complete_trials_are_kept(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=2)
    for number, value in enumerate([0.3, 0.1, 0.4, 0.2], start=1):
        end(keeper, tmp_path, number, TrialState.COMPLETE, value)
    assert left(tmp_path) == ["00001", "00003"]


def test_the_complete_baseline_is_kept_beside_them(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=1)
    for number, value in enumerate([0.1, 0.2, 0.3]):
        end(keeper, tmp_path, number, TrialState.COMPLETE, value)
    assert left(tmp_path) == ["00000", "00002"]


def test_of_equals_the_earlier_is_kept(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=1)
    end(keeper, tmp_path, 1, TrialState.COMPLETE, 0.5)
    end(keeper, tmp_path, 2, TrialState.COMPLETE, 0.5)
    assert left(tmp_path) == ["00001"]


def test_stopped_and_failed_trials_keep_nothing(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=2)
    end(keeper, tmp_path, 0, TrialState.PRUNED, 0.9)
    end(keeper, tmp_path, 1, TrialState.FAIL, 0.9)
    assert left(tmp_path) == []


def test_a_trial_that_left_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    CheckpointRetention(tmp_path, MIOU, keep=0).on_end(Trial(0, {}, {}, state=TrialState.FAIL))


def fill(root: Path, number: int, *names: str, kib: int = 1024) -> None:
    folder = checkpoint_folder(root, number)
    folder.mkdir(exist_ok=True)
    for name in names or ("latest.pt",):
        (folder / name).write_bytes(b"\0" * kib * 1024)


def complete(number: int, value: float) -> Trial:
    return Trial(number, {}, {}, state=TrialState.COMPLETE, metrics={"dev/miou": value})


def files(root: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in root.glob("*/*"))


def test_an_interrupted_trial_keeps_its_checkpoint(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=0)
    end(keeper, tmp_path, 1, TrialState.INTERRUPTED)
    assert left(tmp_path) == ["00001"]


def test_a_resumed_search_knows_the_best_of_earlier_sessions(tmp_path: Path) -> None:
    for number in (1, 2):
        fill(tmp_path, number)
    keeper = CheckpointRetention(tmp_path, MIOU, keep=2, earlier=[complete(1, 0.3), complete(2, 0.1)])
    end(keeper, tmp_path, 3, TrialState.COMPLETE, 0.2)
    assert left(tmp_path) == ["00001", "00003"]


def test_where_less_is_better_the_lowest_are_kept(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, Objective("dev/miou", "min"), keep=1)
    for number, value in enumerate([0.3, 0.1, 0.4], start=1):
        end(keeper, tmp_path, number, TrialState.COMPLETE, value)
    assert left(tmp_path) == ["00002"]


def test_a_budget_takes_first_what_live_trials_hold_besides_their_latest(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=5, max_gib=2.5 / 1024)
    keeper.on_start(Trial(2, {}, {}))
    fill(tmp_path, 2, "latest.pt", "previous.pt")
    fill(tmp_path, 1)
    keeper.on_end(complete(1, 0.3))
    assert files(tmp_path) == ["00001/latest.pt", "00002/latest.pt"]


def test_a_budget_takes_complete_trials_from_the_worst_up(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=5, max_gib=2.5 / 1024)
    for number, value in enumerate([0.3, 0.1, 0.4], start=1):
        fill(tmp_path, number)
        keeper.on_end(complete(number, value))
    assert left(tmp_path) == ["00001", "00003"]


def test_a_budget_never_takes_the_latest_of_a_live_trial(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=5, max_gib=0.5 / 1024)
    keeper.on_start(Trial(2, {}, {}))
    fill(tmp_path, 2)
    keeper.on_end(Trial(1, {}, {}, state=TrialState.FAIL))
    assert files(tmp_path) == ["00002/latest.pt"]


def test_a_live_trial_keeps_the_two_newest_states_that_were_saved_apart(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=5)
    fill(tmp_path, 1, "latest.pt", "step-00000003.pt", "step-00000006.pt", "step-00000009.pt")
    keeper.on_end(Trial(1, {}, {}, state=TrialState.INTERRUPTED))
    assert files(tmp_path) == ["00001/latest.pt", "00001/step-00000006.pt", "00001/step-00000009.pt"]


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    keeper = CheckpointRetention(tmp_path, MIOU, keep=5, max_gib=1.5 / 1024)
    fill(tmp_path, 1)
    (checkpoint_folder(tmp_path, 1) / "step-00000009.pt").hardlink_to(checkpoint_folder(tmp_path, 1) / "latest.pt")
    keeper.on_end(Trial(1, {}, {}, state=TrialState.INTERRUPTED))
    assert len(files(tmp_path)) == 2


def test_a_folder_is_removed_once_however_many_trials_end_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: (removed.append(path.name), remove(path, **options)))
    keeper = CheckpointRetention(tmp_path, MIOU, keep=2)
    for number in range(40):
        end(keeper, tmp_path, number, TrialState.COMPLETE if number % 2 else TrialState.PRUNED, number / 100)
    assert len(removed) == len(set(removed)) == 40 - 2
