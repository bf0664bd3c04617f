"""The contract of `Run`: tests that every implementation passes, whatever its world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.checkpoint import load_checkpoint
from trainers.run import Decision, Run

Body = Callable[[Run], Any]


class RunConformance(ABC):
    """A subclass says how many ranks there are and how to be on each of them."""

    world_size: int

    @abstractmethod
    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        """Return body(run) of each rank, in their order; the world answers report n with decisions[n]."""

    def test_ranks_are_numbered_from_zero(self) -> None:
        assert self.on_every_rank(place, ()) == [(rank, self.world_size) for rank in range(self.world_size)]

    def test_gradients_of_a_wrapped_model_are_the_mean_over_the_ranks(self) -> None:
        results = self.on_every_rank(gradients, ())
        mean = torch.stack([alone for alone, _ in results]).mean(0)
        for _, together in results:
            assert torch.allclose(together, mean, atol=1e-6)  # a sum of two float32 numbers of order one

    def test_wrapping_a_model_leaves_what_it_computes(self) -> None:
        assert self.on_every_rank(outputs_agree, ()) == [True] * self.world_size

    def test_every_rank_gets_the_decision_on_each_report(self) -> None:
        decisions = (Decision.CONTINUE, Decision.CONTINUE, Decision.STOP)
        assert self.on_every_rank(three_reports, decisions) == [list(decisions)] * self.world_size

    def test_no_rank_is_interrupted_where_nobody_asks_for_it(self) -> None:
        assert self.on_every_rank(interruptions, ()) == [[False] * 20] * self.world_size

    def test_before_the_first_report_there_is_nothing_to_restore_on_any_rank(self) -> None:
        assert self.on_every_rank(restored, ()) == [None] * self.world_size


class RestoringConformance(RunConformance):
    """Of a run whose trainings go on after their last report."""

    def test_right_after_a_report_every_rank_restores_what_rank_0_reported(self) -> None:
        assert self.on_every_rank(report_and_restore, (Decision.CONTINUE,)) == [40] * self.world_size

    def test_the_last_report_is_the_one_that_is_restored(self) -> None:
        assert self.on_every_rank(report_twice_and_restore, (Decision.CONTINUE,) * 2) == [41] * self.world_size

    def test_all_ranks_restore_from_the_same_file(self) -> None:
        assert len(set(self.on_every_rank(restored_path, (Decision.CONTINUE,)))) == 1


class Counter:
    """A state that is one number."""

    def __init__(self, step: int) -> None:
        self.step = step

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}


def metrics(step: int) -> dict[str, float]:
    return {"step": float(step), "finished": 0.0, "dev/miou": 0.5}


def place(run: Run) -> tuple[int, int]:
    return run.rank, run.world_size


def model_and_input(run: Run) -> tuple[nn.Module, Tensor]:
    """The same model on every rank, and an input of this rank's own."""
    draws = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2, device=run.device)
    with torch.no_grad():
        model.weight.copy_(torch.randn(2, 3, generator=draws))
        model.bias.copy_(torch.randn(2, generator=draws))
    return model, torch.randn(4, 3, generator=torch.Generator().manual_seed(1 + run.rank)).to(run.device)


def gradients(run: Run) -> tuple[Tensor, Tensor]:
    """Of this rank's own loss, and after averaging."""
    found = []
    for wrap in (lambda model: model, run.wrap):
        model, inputs = model_and_input(run)
        wrapped = wrap(model)  # held, as the hooks that average live no longer than it does
        wrapped(inputs).square().mean().backward()
        found.append(torch.cat([model.weight.grad.flatten(), model.bias.grad]).cpu())
    return found[0], found[1]


def outputs_agree(run: Run) -> bool:
    model, inputs = model_and_input(run)
    return torch.equal(run.wrap(model)(inputs), model(inputs))


def three_reports(run: Run) -> list[Decision]:
    return [run.report(metrics(step), Counter(step)) for step in range(3)]


def interruptions(run: Run) -> list[bool]:
    return [run.interrupted(Counter(step)) for step in range(20)]


def restored(run: Run) -> int | None:
    path = run.restore_from()
    return None if path is None else load_checkpoint(path)["step"]


def report_and_restore(run: Run) -> int | None:
    run.report(metrics(40), Counter(40 + run.rank))
    return restored(run)


def report_twice_and_restore(run: Run) -> int | None:
    for step in (40, 41):
        run.report(metrics(step), Counter(step + run.rank))
    return restored(run)


def restored_path(run: Run) -> Path | None:
    run.report(metrics(40), Counter(40))
    return run.restore_from()
