"""`s4 plan`: arithmetic of what a configuration costs, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet18

from harness.cli.main import run
from harness.planning.training_cost import GPU_SIZES, TrainingCost, check_memory, to_table
from trainers.config import TrainConfig
from trainers.cost import Flops, Memory, Parameters, StepCost, Traffic
from trainers.errors import ConfigError

GIB = 2**30
SMALL = ["data.image_size=32", "model.width=8", "schedule.steps=10", "loss.queries=16", "loss.negatives=16"]


def planned(capsys: pytest.CaptureFixture[str], *words: str, settings: list[str] = SMALL) -> dict[str, Any]:
    """What `s4 plan` writes as JSON."""
    line = ["plan", "digits_css", "--json", *words]
    for setting in settings:
        line += ["--set", setting]
    assert run(line) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def needing(peak: float, workers: int = 1) -> TrainingCost:
    """A plan whose step has this many GiB alive at its peak."""
    memory = Memory(weights=round(peak * GIB), optimizer=0, activations=0, backward=0, rest=0)
    cost = StepCost(Parameters(1, 1), Flops(1, 1, 1, 1), memory, Traffic(8, 8, 8))
    return TrainingCost("some", TrainConfig(), workers, cost, None)


def test_parts_of_a_plan_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys)
    memory, flops = found["memory"], found["flops"]
    assert memory["peak"] == sum(memory[part] for part in ("weights", "optimizer", "activations", "backward", "rest"))
    assert memory["needed"] == round(memory["peak"] * (1 + memory["allowance"]))
    worker = flops["worker_step"]
    assert worker["total"] == sum(worker[part] for part in ("teacher", "student", "backward", "rest"))
    assert flops["horizon"] == 10 * flops["step"] == 10 * 16 * flops["image"]
    assert found["parameters"]["total"] == found["parameters"]["encoder"] + found["parameters"]["heads"]


def test_workers_share_the_batch_and_its_operations(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = planned(capsys), planned(capsys, "--workers", "2")
    assert (two["batch"]["images"], two["batch"]["images_per_worker"]) == (16, 8)
    # Only what a worker draws for the contrastive loss does not get less, which the count says is at most that much.
    assert two["flops"]["worker_step"]["teacher"] * 2 == one["flops"]["worker_step"]["teacher"]
    assert two["flops"]["step"] == 2 * two["flops"]["worker_step"]["total"]


def test_supervised_training_counts_no_unlabelled_image(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, settings=[*SMALL, "loss.lambda_u=0", "loss.lambda_c=0"])
    assert (found["batch"]["images"], found["batch"]["unlabelled"]) == (8, 0)
    assert found["flops"]["worker_step"]["teacher"] == 0


def test_a_plan_names_the_config_that_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = planned(capsys), planned(capsys, settings=[*SMALL, "schedule.accumulate=2"])
    assert one["config_hash"] != other["config_hash"]
    assert other["batch"]["accumulate"] == 2


def test_a_plan_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "digits_css", "--workers", "2", *(word for s in SMALL for word in ("--set", s))]) == 0
    shown = capsys.readouterr().out
    for part in ("parameters", "GFLOP", "10 steps", "16 GiB", "20%", "each worker contributes gradients", "8 labelled"):
        assert part in shown


def test_a_plan_says_what_a_file_holds_of_the_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(resnet18().state_dict(), path)
    settings = [*SMALL, "model.arch=deeplabv3plus", "model.backbone=resnet18", f"model.backbone_weights={path}"]
    weights = planned(capsys, settings=settings)["weights"]
    assert (weights["matched"], weights["total"], weights["source"]) == (100, 100, str(path))
    assert len(weights["sha256"]) == 64


# 20 % more than is counted must fit: 20 GiB need 24, 13.34 need a little more than 16.
@pytest.mark.parametrize(("peak", "smallest"), [(1, 16), (13.33, 16), (13.34, 24), (20, 24), (66.6, 80)])
def test_a_gpu_fits_that_has_room_for_the_allowance(peak: float, smallest: int) -> None:
    assert needing(peak).fits == [size for size in GPU_SIZES if size >= smallest]


def test_where_no_gpu_fits_the_table_says_so() -> None:
    table = to_table(needing(100))
    assert any("none of these sizes" in str(cell) for row in table.rows for cell in row)


def test_what_does_not_fit_is_refused_with_what_to_change() -> None:
    with pytest.raises(ConfigError) as refused:
        check_memory(needing(20.5, workers=2), 24)
    assert str(refused.value) == (
        "a step must fit in --memory 24 GiB, a worker needs 24.60 GiB (20.50 counted and 20% allowed for what is not): "
        "raise schedule.accumulate above 1, take more than 2 --workers, or a smaller augment.weak.crop"
    )


def test_what_fits_exactly_is_not_refused() -> None:
    check_memory(needing(20), 24)


WRONG = {
    "plan digits_cs": "got 'digits_cs': did you mean digits_css?",
    "plan --workers 3": "schedule.labelled_batch is shared by all workers",
    "plan --memory 0.001": "a step must fit in --memory 0.001 GiB",
    "plan --set model.arch=deeplabv3plus --set model.backbone_weights=none.pt": "must be a file that can be read",
    "plan --set model.backbone_weights=imagnet": "must be none, imagenet, pretrained, bundled, or a state dict",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_answered_in_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert WRONG[line] in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
