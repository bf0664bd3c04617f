"""The loop: when it reports, what it reads, how it ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny import differences, tiny_config

from trainers import loop
from trainers.data.batches import check_batches
from trainers.data.splits import Splits, open_splits
from trainers.errors import ConfigError, DivergedError
from trainers.loader import load_batch, to_images
from trainers.local_run import LocalRun
from trainers.loop import train, warm_up
from trainers.run import Decision
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import StepContext

SHORT = {"schedule.steps": 5, "schedule.evaluate_every": 2}


class Listener:
    """Keeps every report and says stop at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.reports: list[dict[str, float]] = []
        self.stop_at = stop_at

    def __call__(self, metrics: Mapping[str, float]) -> Decision | None:
        self.reports.append(dict(metrics))
        return Decision.STOP if metrics["step"] == self.stop_at else None

    @property
    def steps(self) -> list[float]:
        return [report["step"] for report in self.reports]


def run(overrides: Mapping[str, Any], listener: Listener, folder: Path | None = None) -> TrainState:
    return train(tiny_config(overrides), LocalRun(folder=folder, device=torch.device("cpu"), listener=listener))


def test_reports_come_every_so_many_steps_and_at_the_last() -> None:
    listener = Listener()
    run(SHORT, listener)
    assert listener.steps == [2.0, 4.0, 5.0]


def test_only_the_report_at_the_horizon_says_finished() -> None:
    listener = Listener()
    run(SHORT, listener)
    assert [report["finished"] for report in listener.reports] == [0.0, 0.0, 1.0]


def test_a_decision_to_stop_ends_training_at_that_report() -> None:
    listener = Listener(stop_at=2)
    state = run(SHORT, listener)
    assert listener.steps == [2.0]
    assert state.step == 2


def test_a_stopped_run_keeps_the_state_of_its_last_report(tmp_path: Path) -> None:
    state = run(SHORT, Listener(stop_at=2), tmp_path)
    saved = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert differences(saved, state.state_dict()) == []


def test_a_report_holds_losses_shares_scores_and_times() -> None:
    listener = Listener()
    run(SHORT, listener)
    by_class_or_health = ("dev/iou/", "quality/", "health/", "kept/", "predicted/")
    names = {name for name in listener.reports[0] if not name.startswith(by_class_or_health)}
    assert names == {
        "step",
        "finished",
        "train/loss/total",
        "train/loss/supervised",
        "train/loss/unsupervised",
        "train/loss/contrast",
        "train/share/labelled",
        "train/share/unsupervised",
        "train/share/valid",
        "train/share/hard",
        "time/step_s",
        "time/first_step_unix",
        "dev/miou",
    }


def test_the_time_of_a_step_includes_the_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    read = torch.Tensor.tolist

    def wait(tensor: torch.Tensor) -> Any:
        clock[0] += 6.0
        return read(tensor)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    state = TrainState(tiny_config(), LocalRun(device=torch.device("cpu")))
    meter = loop.Meter(LocalRun(device=torch.device("cpu")))
    output = StepOutput({"supervised": torch.ones(())}, {}, state.prototypes)
    for _ in range(2):
        meter.add(torch.ones(()), output)
        meter.count_step()
    monkeypatch.setattr(torch.Tensor, "tolist", wait)
    assert meter.read(state)["time/step_s"] == 3.0


def test_the_total_is_the_weighted_sum_of_the_losses() -> None:
    listener = Listener()
    run({**SHORT, "loss.lambda_u": 0.5, "loss.lambda_c": 0.3, "loss.lambda_c_ramp": "constant"}, listener)
    for report in listener.reports:
        parts = {name: report[f"train/loss/{name}"] for name in ("supervised", "unsupervised", "contrast")}
        expected = parts["supervised"] + 0.5 * parts["unsupervised"] + 0.3 * parts["contrast"]
        assert report["train/loss/total"] == pytest.approx(expected, rel=1e-5)  # float32


def test_a_report_is_the_mean_since_the_last_one() -> None:
    every_step, every_second = Listener(), Listener()
    run({"schedule.steps": 4, "schedule.evaluate_every": 1}, every_step)
    run({"schedule.steps": 4, "schedule.evaluate_every": 2}, every_second)
    single = [report["train/loss/total"] for report in every_step.reports]
    means = [report["train/loss/total"] for report in every_second.reports]
    assert means == pytest.approx([(single[0] + single[1]) / 2, (single[2] + single[3]) / 2], rel=1e-5)  # float32


def test_evaluating_more_often_changes_nothing_of_training() -> None:
    one = run({"schedule.steps": 4, "schedule.evaluate_every": 1}, Listener()).state_dict()
    other = run({"schedule.steps": 4, "schedule.evaluate_every": 4}, Listener()).state_dict()
    assert differences(one.pop("snapshots")[-1:], other.pop("snapshots")) == []
    assert differences(one, other) == ["/config_hash"]


class Unreadable:
    """Images that nobody may read."""

    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 16

    def fetch(self, indices: Sequence[int]) -> Any:
        raise AssertionError(f"read unlabelled images {indices}")


@pytest.fixture
def _unreadable_unlabelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(data: Any) -> Splits:
        return open_splits(data)._replace(unlabelled=Unreadable())

    monkeypatch.setattr(loop, "open_splits", opened)


@pytest.mark.usefixtures("_unreadable_unlabelled")
def test_supervised_training_reads_no_unlabelled_image() -> None:
    state = run({**SHORT, "loss.lambda_u": 0.0, "loss.lambda_c": 0.0}, Listener())
    assert state.step == 5


@pytest.mark.usefixtures("_unreadable_unlabelled")
@pytest.mark.parametrize("lambdas", [(1.0, 0.0), (0.0, 0.1)])
def test_either_unlabelled_loss_reads_unlabelled_images(lambdas: tuple[float, float]) -> None:
    with pytest.raises(AssertionError, match="read unlabelled images"):
        run({**SHORT, "loss.lambda_u": lambdas[0], "loss.lambda_c": lambdas[1]}, Listener())


@pytest.mark.parametrize("supervised", [{}, {"loss.lambda_u": 0.0, "loss.lambda_c": 0.0}], ids=["css", "supervised"])
def test_a_loss_that_is_not_finite_raises_and_reports_nothing(supervised: dict[str, float], tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(DivergedError, match=r"training diverged by step 4: .*train/loss/total.* not finite"):
        run({"schedule.evaluate_every": 4, "optimizer.lr": 1e30, **supervised}, listener, tmp_path)
    assert listener.reports == []
    assert not list(tmp_path.iterdir())


def test_warming_up_changes_nothing_of_the_run_that_follows() -> None:
    cold = run(SHORT, Listener()).state_dict()
    warm_up(tiny_config({"seed": 3}), LocalRun(device=torch.device("cpu")))
    assert differences(run(SHORT, Listener()).state_dict(), cold) == []


@pytest.mark.parametrize("name", ["labelled_batch", "unlabelled_batch"])
def test_a_batch_that_the_ranks_cannot_share_is_refused_with_one_that_they_can(name: str) -> None:
    config = tiny_config({f"schedule.{name}": 5})
    with pytest.raises(ConfigError, match=rf"schedule\.{name} .* got 5 for 4 workers x 1: set it to 8"):
        check_batches(config, 4)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    config = tiny_config()
    splits = open_splits(config.data)
    one, same, later = (
        load_batch(splits, config, StepContext(0, step), torch.device("cpu"))._asdict() for step in (3, 3, 4)
    )
    assert differences(one, same) == []
    assert sorted(differences(one, later)) == ["/images", "/inside", "/labels", "/unlabelled"]


def test_the_batches_of_the_ranks_are_the_batch_of_one() -> None:
    config = tiny_config()
    splits = open_splits(config.data)
    whole = load_batch(splits, config, StepContext(0, 3), torch.device("cpu"))
    halves = [load_batch(splits, config, StepContext(0, 3, rank, 2), torch.device("cpu")) for rank in range(2)]
    there = [name for name, part in zip(whole._fields, whole, strict=True) if part is not None]
    assert there == ["images", "labels", "unlabelled", "inside"]
    joined = [torch.cat([getattr(half, name) for half in halves]) for name in there]
    assert differences(joined, [getattr(whole, name) for name in there]) == []


def test_images_become_numbers_from_zero_to_one() -> None:
    images = to_images(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1), torch.device("cpu"))
    assert images.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
