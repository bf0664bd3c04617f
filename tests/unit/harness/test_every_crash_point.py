"""The driver dies at every point at which it writes; whatever comes next completes what it left open."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killed import HORIZON, Counting, World

from harness import api
from harness.ablation.request import Confirms, make_request
from harness.console import make_console
from harness.ledger import LEDGER, read_ledger
from harness.one_driver import sole_driver
from harness.run_folder import RUN, RunInfo
from harness.session import ablate_session, left_open, send_records
from harness.tracking.outbox import how_closed, pending
from harness.tracking.stores import OUTBOX
from harness.trials import TrialState
from search_spaces.ablation import AblationPlan, Variant
from trainers.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # files of drivers that died

NAME, URI = "run", "sqlite:///nowhere.db"
VARIANTS = {"base": {}, "more": {"x": 2.0}}


def train(storage: Path) -> None:
    resume = (storage / NAME / RUN).exists()
    try:
        api.train(Counting(), name=NAME, storage=storage, tracking_uri=URI, resume=resume, quiet=True)
    except UsageError as error:
        if "is complete" not in str(error):
            raise


def ablate(storage: Path) -> None:
    api.ablate(Counting(), plan=VARIANTS, seeds=(0, 1), name=NAME, storage=storage, tracking_uri=URI,
               metric="val/miou", quiet=True)  # fmt: skip


def confirm(storage: Path) -> None:
    experiment = Counting()
    plan = AblationPlan("plan", "made up", None, "base", tuple(Variant(*item) for item in VARIANTS.items()), "")
    info = RunInfo.of("confirm", experiment, "dev/miou", {})
    request = make_request(plan, info, experiment, (0, 1), False)
    confirms = Confirms("a-search", {"base": 0, "more": 3}, {"base": 0.2, "more": 0.3}, None)
    with sole_driver(storage / NAME) as folder:
        ablate_session(
            folder, replace(request, confirms=confirms), experiment, "val/miou", URI, make_console(True), workers=1,
            gangs=1, address="local",
        )  # fmt: skip


KINDS: Mapping[str, tuple[Callable[[Path], None], int]] = {
    "train": (train, 1),
    "ablate": (ablate, 4),
    "confirm": (confirm, 4),
}
"""What begins or goes on with a run of a kind, and its trials."""


def books(world: World) -> dict[str, Any]:
    """What a finished run must have left, whatever happened to its drivers."""
    folder = world.storage / NAME
    trials = read_ledger(folder / LEDGER).trials
    results = json.loads(
        (folder / ("results.json" if (folder / "results.json").exists() else "ablation.json")).read_text()
    )
    for name in ("elapsed_s", "device_s", "overheads"):
        results.pop(name, None)
    runs = world.server.runs.values()
    return {
        "ledger": {number: (trial.state, tuple(step for step, _ in trial.values)) for number, trial in trials.items()},
        "trained": sorted(world.trained),
        "runs": sorted((run.data.tags["s4.kind"], run.data.tags.get("s4.trial", ""), run.info.status,
                        run.data.tags.get("s4.state", ""), tuple(sorted(run.points))) for run in runs),
        "pending": pending(folder / OUTBOX),
        "closed": how_closed(folder / OUTBOX),
        "variants": results.get("variants"),
        "chosen": results.get("chosen"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "slow"),
    [
        pytest.param("train", False, id="train-sent at once"),
        pytest.param("train", True, id="train-sent at the end", marks=pytest.mark.long),
        pytest.param("ablate", False, id="ablate-sent at once", marks=pytest.mark.long),
        pytest.param("ablate", True, id="ablate-sent at the end"),
        pytest.param("confirm", False, id="confirm-sent at once"),
        pytest.param("confirm", True, id="confirm-sent at the end", marks=pytest.mark.long),
    ],
)
def test_a_run_ends_as_if_its_driver_had_never_been_killed(
    kind: str, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, trials = KINDS[kind]
    whole = World(tmp_path / "whole", monkeypatch, slow)
    with whole.driver():
        begin(whole.storage)
    expected, points = books(whole), whole.death.points
    assert set(expected["ledger"].values()) == {(TrialState.COMPLETE, tuple(range(1, HORIZON + 1)))}
    assert (len(expected["ledger"]), expected["pending"], expected["closed"]) == (trials, 0, "FINISHED")
    assert {status for _, _, status, _, _ in expected["runs"]} == {"FINISHED"}
    for point in range(points):
        monkeypatch.undo()
        world = World(tmp_path / str(point), monkeypatch, slow)
        with world.driver(dies_at=point):
            begin(world.storage)
        if point % 2 and (world.storage / NAME / OUTBOX).exists() and (world.storage / NAME / OUTBOX).stat().st_size:
            with world.driver():
                assert left_open(world.storage / NAME) == (how_closed(world.storage / NAME / OUTBOX) is None)
            with world.driver():
                send_records(world.storage / NAME, URI)
                assert not left_open(world.storage / NAME)
            assert "RUNNING" not in {run.info.status for run in world.server.runs.values()}, point
        with world.driver():
            begin(world.storage)
        assert books(world) == expected, f"died at point {point} of {points}"


def scale(storage: Path, name: str) -> None:
    api.scale("digits_css", workers=(1,), repeats=1, name=name, storage=storage, tracking_uri=URI, quiet=True)


def test_a_measurement_that_was_killed_is_closed_by_sync_and_bars_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it measured is not resumed: the machine may be another by then."""
    whole = World(tmp_path / "whole", monkeypatch, False)
    with whole.driver():
        scale(whole.storage, NAME)
    points = whole.death.points
    assert sorted((run.data.tags["s4.kind"], run.info.status) for run in whole.server.runs.values()) == [
        ("point", "FINISHED"), ("scale", "FINISHED"),
    ]  # fmt: skip
    for point in range(points):
        monkeypatch.undo()
        world = World(tmp_path / str(point), monkeypatch, False)
        outbox = world.storage / NAME / OUTBOX
        with world.driver(dies_at=point):
            scale(world.storage, NAME)
        if outbox.exists() and outbox.stat().st_size:
            with world.driver():
                send_records(world.storage / NAME, URI)
            assert "RUNNING" not in {run.info.status for run in world.server.runs.values()}, point
            assert (pending(outbox), left_open(world.storage / NAME)) == (0, False), point
        with world.driver():
            scale(world.storage, "another")
        assert how_closed(world.storage / "another" / OUTBOX) == "FINISHED", f"died at point {point} of {points}"
