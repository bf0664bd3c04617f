"""What ranks report of a state together is what one process reports, and the same on each."""

import pytest
import torch
from ranks import Processes
from reference.tiny import tiny_config
from torch import Tensor

from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.evaluate import confusion_matrix, evaluate_state
from trainers.local_run import LocalRun
from trainers.models.build import build_model
from trainers.state import TrainState

CPU = torch.device("cpu")


def reported_here() -> dict[str, float]:
    """Of a state that predicts several classes, on 7 dev and 5 unlabelled images, one at a time."""
    torch.set_num_threads(1)
    config = tiny_config(
        {"data.dev": 7, "evaluation.batch": 1, "evaluation.quality_images": 5, "thresholds.delta_u": 0.15}
    )
    state = TrainState(config, LocalRun(device=CPU))
    draws = torch.Generator().manual_seed(1)
    directions = [torch.randn(config.num_classes, config.model.representation_dim, generator=draws) for _ in range(2)]
    seen = torch.arange(config.num_classes) != 3
    with torch.no_grad():
        state.teacher.heads.segment[1].weight.mul_(100.0)
    state.prototypes, state.prototypes_at_report = (Prototypes(values, seen) for values in directions)
    return evaluate_state(state, open_splits(config.data), config, LocalRun(device=CPU))


@pytest.fixture(scope="module")
def one() -> dict[str, float]:
    return reported_here()


def test_what_is_reported_says_something(one: dict[str, float]) -> None:
    assert 0 < one["health/predicted_entropy"] < 1
    assert 0 < one["quality/mix/share"] < 1
    assert 0 < one["quality/confident/share"] < 1


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_report_what_one_process_does_though_they_see_unequally_many_images(
    processes: Processes, one: dict[str, float], world_size: int
) -> None:
    # Counts are integers and the state is the same, so there is nothing to round.
    assert processes.call(world_size, reported_here) == [one] * world_size


def confusion_here() -> Tensor:
    """Of 7 dev images, one at a time."""
    config = tiny_config({"data.dev": 7, "evaluation.batch": 1})
    torch.set_num_threads(1)
    model = build_model(config.model, config.num_classes, 3, CPU).eval()
    with torch.no_grad():
        model.heads.segment[1].weight.mul_(100.0)  # so that an untrained network predicts several classes
    return confusion_matrix(model, open_splits(config.data).dev, config, LocalRun(device=CPU))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_every_image_is_counted_once_though_ranks_hold_unequally_many(processes: Processes, world_size: int) -> None:
    one = confusion_here()
    assert int((one.sum(0) > 0).sum()) > 1
    assert one.sum().item() == 7 * 32 * 32
    for counted in processes.call(world_size, confusion_here):
        assert torch.equal(counted, one)
