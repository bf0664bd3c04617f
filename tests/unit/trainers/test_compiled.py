"""compute.compile and compute.graph change how a step is computed and not what; graphs are made once."""

import shutil
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from reference.tiny import differences, tiny_config
from torch._dynamo.utils import counters

from trainers import compute, whole_step
from trainers.css.supervision import confident_pixel_loss
from trainers.data.batches import check_batches
from trainers.local_run import LocalRun
from trainers.loop import train, warm_up
from trainers.methods import METHODS
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.whole_step import is_graph

METHOD = {"model.norm": "group", "schedule.evaluate_every": 2, "schedule.steps": 6, "css.cross_warmup": 0.0}


@pytest.fixture
def no_graphs() -> Iterator[None]:
    """Nothing is compiled yet, and nothing is left."""
    compute._compiled.cache_clear()
    whole_step._graph.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield
    compute._compiled.cache_clear()
    whole_step._graph.cache_clear()
    torch._dynamo.reset()


@pytest.fixture
def traced(no_graphs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and split as for any compiler, and then run as they are: inductor would take minutes."""
    real = torch.compile

    def trace(what: Any, mode: str | None, **options: Any) -> Any:
        return real(what, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", trace)


def graphs() -> int:
    """Graphs compiled so far."""
    return int(counters["stats"]["unique_graphs"])


def compiled_training(overrides: Mapping[str, Any]) -> TrainState:
    return train(tiny_config({**METHOD, "compute.compile": True, **overrides}), LocalRun(device=torch.device("cpu")))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("strategy", ["mix", "cross"])
def test_a_compiled_training_learns_the_same_and_compiles_nothing_after_its_first_report(strategy: str) -> None:
    settings = {**METHOD, "css.label_strategy": strategy}
    reports: list[Mapping[str, float]] = []
    seen: list[int] = []

    def listen(metrics: Mapping[str, float]) -> None:
        reports.append(metrics)
        seen.append(graphs())

    plain = train(tiny_config(settings), LocalRun(device=torch.device("cpu")))
    switched_on = LocalRun(device=torch.device("cpu"), listener=listen)
    state = train(tiny_config({**settings, "compute.compile": True}), switched_on)
    assert seen[0] > 0
    assert seen == seen[:1] * 3
    one, other = plain.student.state_dict(), state.student.state_dict()
    assert one.keys() == other.keys()
    # float32, fused otherwise, over six steps.
    assert [name for name in one if not torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5)] == []


def searched(trial: int) -> dict[str, Any]:
    """What a search varies, another value of each for each trial."""
    share = (trial + 1) / 20
    return {
        "thresholds.delta_u": share, "css.indicator_temperature": 0.01 + share / 100, "thresholds.delta_s": 0.2 + share,
        "thresholds.delta_w": share / 10, "loss.lambda_u": share, "loss.lambda_c": share, "loss.temperature": share,
        "ema.teacher_momentum": share, "ema.prototype_momentum": share, "optimizer.lr": share / 100,
        "optimizer.momentum": share, "optimizer.weight_decay": share / 1000, "loss.class_weights": (share,) * 11,
        "loss.ohem_threshold": share, "schedule.steps": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "settings",
    [{}, {"loss.supervised": "ohem", "loss.unsupervised": "image_share"}],
    ids=["cross-entropies", "ohem, image share"],
)
def test_trials_that_differ_in_numbers_alone_share_the_graphs_of_the_first(settings: Mapping[str, Any]) -> None:
    first = compiled_training({**searched(0), **settings})
    compiled = graphs()
    for trial in range(1, 12):
        compiled_training({**searched(trial), **settings})
    assert graphs() == compiled > 0
    again = compiled_training({**searched(0), **settings})
    assert differences(first.state_dict(), again.state_dict()) == []


@pytest.mark.usefixtures("traced")
def test_more_networks_than_torch_keeps_graphs_of_by_itself_are_compiled_like_the_first() -> None:
    counts = [graphs()]
    for width in range(8, 8 + 12 * 8, 8):
        config = tiny_config({"model.width": width, "compute.compile": True})
        state = TrainState(config, LocalRun(device=torch.device("cpu")))
        with torch.no_grad():
            state.teaching(torch.rand(1, 3, 32, 32))
        counts.append(graphs())
    assert [after - before for before, after in pairwise(counts)] == [1] * 12


@pytest.mark.usefixtures("traced")
def test_images_of_an_evaluation_leave_the_graphs_of_the_steps_alone() -> None:
    state = compiled_training({"schedule.steps": 1})
    compiled = graphs()
    for height, width in ((32, 48), (48, 64), (16, 80)):
        with torch.no_grad():
            state.scored.eval()(torch.rand(1, 3, height, width))
            state.student.eval()(torch.rand(1, 3, height, width))
    state.student.train()
    compiled_training({"schedule.steps": 1})
    assert graphs() == compiled


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
def test_compiled_to_code_a_loss_of_other_thresholds_is_the_same_function() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, confidence = torch.randn(2, 5, 8, 8, generator=draws), torch.rand(2, 8, 8, generator=draws)
    target = torch.randint(0, 5, (2, 8, 8), generator=draws)
    loss = compute.as_configured(confident_pixel_loss, tiny_config({"compute.compile": True}))
    thresholds = [step / 12 for step in range(12)]
    fast, slow = (
        [function(logits, target, confidence, at) for at in thresholds] for function in (loss, confident_pixel_loss)
    )
    assert graphs() == 1
    assert [one.divisor for one in fast] == [one.divisor for one in slow]
    totals = [torch.stack([one.total for one in losses]) for losses in (fast, slow)]
    assert torch.allclose(*totals, rtol=1e-5)  # sums of at most 128 numbers in float32, in another order
    assert torch.equal(loss(logits, target, confidence, thresholds[0]).total, fast[0].total)


GRAPH = {**METHOD, "compute.graph": True}
ONE_GRAPH: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "mix, ohem": ({"loss.supervised": "ohem", "loss.class_weights": (2.0,) * 11}, 1),
    "supervised": (METHODS["supervised"], 1),
    "cross, warmed up half-way": ({"css.label_strategy": "cross", "css.cross_warmup": 0.5}, 2),
    "as released": (METHODS["css_mix_released"], 1),
    "three streams": (METHODS["unimatch"], 1),
    "two, with contrast": (METHODS["unimatch_css"], 1),
    "a bank": (METHODS["pixcon"], 1),
    "labelled images and a bank": ({**METHODS["supervised"], "bank.weight": 0.1}, 1),
    "queues of unreliable pixels": ({**METHODS["u2pl"], "unreliable.anchor_confidence": 0.05}, 1),
    "two students": (METHODS["cps_cutmix"], 1),
    "weak labels": ({"loss.lambda_w": 1.0, "css.veto": True}, 1),
    "Gaussians": (METHODS["prcl"], 1),
    "an auxiliary head": ({"model.auxiliary": "inner", "loss.auxiliary_targets": "all"}, 1),
    "a discriminator": ({**METHODS["adversarial"], "adversary.discriminator_width": 8, "loss.labelled_first": 0.0}, 1),
}
LIKE_OTHERS = {"as released", "two, with contrast", "a bank", "queues of unreliable pixels", "weak labels", "Gaussians"}
"""Cases whose graph is made as that of others is; the long tests have them."""


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("settings", "count"),
    [pytest.param(*case, id=name, marks=[pytest.mark.long] if name in LIKE_OTHERS else [])
     for name, case in ONE_GRAPH.items()],
)  # fmt: skip
def test_a_training_whose_step_is_one_graph_learns_the_same(settings: Mapping[str, Any], count: int) -> None:
    run = LocalRun(device=torch.device("cpu"))
    one = train(tiny_config({**GRAPH, **settings}), run).student.state_dict()
    assert graphs() == count
    other = train(tiny_config({**METHOD, **settings}), run).student.state_dict()
    # float32, added up in another order over six steps.
    assert [name for name in one if not torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5)] == []


@pytest.mark.usefixtures("traced")
def test_one_graph_serves_trials_that_differ_in_numbers_alone() -> None:
    def trained(trial: int) -> TrainState:
        share = (trial + 1) / 20
        strong = {f"augment.strong.{name}": share for name in ("jitter", "blur", "flip", "shift")}
        streams = {"streams.second.weight": share, "streams.second.strong.jitter": share, "loss.lambda_s": share}
        overrides = {**GRAPH, **searched(trial), **strong, **streams, "augment.strong.scale": (1 - share, 1 + share)}
        return train(tiny_config(overrides), LocalRun(device=torch.device("cpu")))

    first = trained(0)
    for trial in range(1, 12):
        trained(trial)
    assert graphs() == 1
    assert differences(first.state_dict(), trained(0).state_dict()) == []


@pytest.mark.usefixtures("traced")
def test_one_graph_serves_trials_that_differ_in_percentiles_and_shares() -> None:
    for share in (0.1, 0.2, 0.3):
        numbers = {"thresholds.percentile": share, "unreliable.share": share, "unreliable.anchor_confidence": share}
        train(tiny_config({**GRAPH, **METHODS["u2pl"], **numbers, "schedule.steps": 2}), LocalRun())
    assert graphs() == 1


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
def test_compiled_to_code_one_graph_serves_trials_that_differ_in_numbers_alone() -> None:
    def trained(trial: int, *, graph: bool = True) -> TrainState:
        overrides = {**METHOD, **searched(trial), "compute.graph": graph}
        return train(tiny_config(overrides), LocalRun(device=torch.device("cpu")))

    first = trained(0)
    others = [trained(trial) for trial in range(1, 12)]
    assert graphs() == 1
    assert differences(first.state_dict(), trained(0).state_dict()) == []
    one, other = (state.student.state_dict() for state in (others[-1], trained(11, graph=False)))
    # float32, fused otherwise, over one step.
    assert [name for name in one if not torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5)] == []


@pytest.mark.usefixtures("traced")
def test_the_precision_of_cuda_can_be_set_within_a_graph() -> None:
    config = tiny_config()

    def double(values: torch.Tensor) -> torch.Tensor:
        with compute.in_precision(config, torch.device("cuda")):
            return 2 * values

    assert compute.compiled(double, whole=True)(torch.ones(2)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "workers", "why"),
    [({}, 2, "2 workers wait for each other"), ({"compute.compile": True}, 1, "compute.compile has graphs of its own"),
     ({"schedule.accumulate": 2}, 1, r"a step has 2 parts \(schedule.accumulate\)")],
)  # fmt: skip
def test_where_a_step_cannot_be_one_graph_it_is_said_once(
    settings: Mapping[str, Any], workers: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config({**GRAPH, **settings})
    check_batches(config, workers)
    whole_step._say.cache_clear()
    with pytest.warns(UserWarning, match=f"compute.graph has no effect, steps run as they are: {why}$") as said:
        assert not any(is_graph(config, workers) for _ in range(2))
    assert len(said) == 1


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("warmed", [False, True], ids=["as it is", "after a warm-up"])
def test_a_training_whose_graph_fails_while_it_forms_runs_as_it_is_and_says_why(
    call: int, where: str, warmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failing(*arguments: Any) -> StepOutput:
        output = whole_step._whole(*arguments)
        calls.append(1)
        if len(calls) < call:
            return output
        if where == "forward":
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        losses = {name: _Fails.apply(value) for name, value in output.losses.items()}
        return output._replace(losses=losses)

    monkeypatch.setattr(whole_step, "_graph", lambda: failing)
    monkeypatch.setattr(whole_step, "_failed", {})
    whole_step._say.cache_clear()
    run = LocalRun(device=torch.device("cpu"))
    config = tiny_config({**GRAPH, "schedule.evaluate_every": 6})
    why = "steps run as they are: RuntimeError: operation not permitted when stream is capturing$"

    def trainings() -> TrainState:
        if warmed:
            warm_up(config, run)
        state = train(config, run)
        train(tiny_config({**GRAPH, "optimizer.lr": 0.1}), run)
        return state

    with pytest.warns(UserWarning, match=why) as said:
        state = trainings()
    assert len(said) == 1
    assert len(calls) == call
    plain = train(tiny_config({**METHOD, "schedule.evaluate_every": 6}), run)
    assert differences(state.state_dict(), plain.state_dict()) == ["/config_hash"]


def test_what_fails_later_or_for_want_of_memory_ends_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def failing(*arguments: Any) -> StepOutput:
        calls.append(1)
        if len(calls) == failure[0]:
            raise failure[1]
        return whole_step._whole(*arguments)

    monkeypatch.setattr(whole_step, "_graph", lambda: failing)
    for failure in ((3, RuntimeError("after the first report")), (1, torch.OutOfMemoryError("of the device"))):
        calls.clear()
        with pytest.raises(type(failure[1]), match=str(failure[1])):
            train(tiny_config(GRAPH), LocalRun(device=torch.device("cpu")))
