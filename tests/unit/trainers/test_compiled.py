"""compute.compile changes how a step is computed and not what; graphs are made once."""

from collections.abc import Iterator, Mapping
from functools import partial

import pytest
import torch
from reference.tiny import tiny_config
from torch._dynamo.utils import counters

from trainers import compute
from trainers.local_run import LocalRun
from trainers.loop import train

METHOD = {"model.norm": "group", "schedule.evaluate_every": 2, "schedule.steps": 6, "css.cross_warmup": 0.0}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are traced and split as for any compiler, and then run as they are: inductor would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compute._compiled.cache_clear()
    torch._dynamo.reset()
    yield
    compute._compiled.cache_clear()
    torch._dynamo.reset()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("strategy", ["mix", "cross"])
def test_a_compiled_training_learns_the_same_and_compiles_nothing_after_its_first_report(strategy: str) -> None:
    settings = {**METHOD, "css.label_strategy": strategy}
    reports: list[Mapping[str, float]] = []
    graphs: list[int] = []

    def listen(metrics: Mapping[str, float]) -> None:
        reports.append(metrics)
        graphs.append(counters["stats"]["unique_graphs"])

    plain = train(tiny_config(settings), LocalRun(device=torch.device("cpu")))
    switched_on = LocalRun(device=torch.device("cpu"), listener=listen)
    state = train(tiny_config({**settings, "compute.compile": True}), switched_on)
    assert graphs[0] > 0
    assert graphs == graphs[:1] * 3
    one, other = plain.student.state_dict(), state.student.state_dict()
    assert one.keys() == other.keys()
    # float32, fused otherwise, over six steps.
    assert [name for name in one if not torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5)] == []
