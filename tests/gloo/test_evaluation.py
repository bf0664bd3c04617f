"""What ranks report of a state together is what one process reports, and the same on each."""

import torch
from ranks import Ranks
from reference.tiny import tiny_config

from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.evaluate import evaluate_state
from trainers.local_run import LocalRun
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


def test_two_ranks_report_what_one_process_does(two_ranks: Ranks) -> None:
    one = reported_here()
    assert 0 < one["health/predicted_entropy"] < 1
    assert 0 < one["quality/mix/share"] < 1
    assert 0 < one["quality/confident/share"] < 1
    # Counts are integers and the state is the same, so there is nothing to round.
    assert two_ranks.call(reported_here) == [one, one]
