"""The model finds the parameters of machines that follow it, and says where it cannot."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented.scalings import COLLECTIVES, SENT, sample

from harness.scaling.model import NotIdentifiedError, Sample, fit_all

IMAGES = {8: 128, 64: 1024, 512: 8192}
Samples = dict[int, list[Sample]]


def weak_step(workers: int, compute: float, latency: float, per_byte: float) -> float:
    hops = 2 * (workers - 1)
    return compute + hops * COLLECTIVES * latency + hops / workers * SENT * per_byte


def weak(counts: tuple[int, ...], compute: float, latency: float, per_byte: float) -> Samples:
    return {
        n: [sample(n, weak_step(n, compute, latency, per_byte), 16 * n, latency, per_byte)] for n in counts
    }  # fmt: skip


@settings(max_examples=50)
@given(
    compute=st.floats(1e-3, 10),
    latency=st.floats(1e-6, 1e-3),
    per_byte=st.floats(1e-11, 1e-8),
    counts=st.sampled_from([(1, 2), (1, 2, 4), (2, 4), (1, 3, 8)]),
)
def test_a_machine_that_follows_the_model_is_found_again(
    compute: float, latency: float, per_byte: float, counts: tuple[int, ...]
) -> None:
    fit = fit_all("weak", weak(counts, compute, latency, per_byte), IMAGES)
    assert fit.worst < 1e-6  # least squares in float64 of numbers ten orders of magnitude apart
    for one in fit.predictions:
        assert one.step_s == pytest.approx(weak_step(one.workers, compute, latency, per_byte), rel=1e-4)


def test_weak_efficiency_is_the_first_step_over_the_last() -> None:
    fit = fit_all("weak", weak((1, 2), 0.1, 1e-4, 1e-9), IMAGES)
    expected = weak_step(1, 0.1, 1e-4, 1e-9) / weak_step(64, 0.1, 1e-4, 1e-9)
    assert fit.predictions[1].workers == 64
    assert fit.predictions[1].efficiency == pytest.approx(expected, rel=1e-6)
    assert fit.predictions[1].images_per_s == pytest.approx(1024 / fit.predictions[1].step_s)


def test_strong_scaling_tells_what_is_shared_from_what_is_not() -> None:
    latency, per_byte = 1e-5, 1e-10
    samples = {
        n: [sample(n, 0.01 + 0.08 / n + weak_step(n, 0, latency, per_byte), 16, latency, per_byte)] for n in (1, 2)
    }  # fmt: skip
    fit = fit_all("strong", samples, {8: 16})
    assert fit.model.parameters["fixed_s"] == pytest.approx(0.01, rel=1e-4)
    assert fit.model.parameters["compute_s"] == pytest.approx(0.08, rel=1e-4)
    step = 0.01 + 0.08 / 8 + weak_step(8, 0, latency, per_byte)
    assert fit.predictions[0].efficiency == pytest.approx(0.09 / (8 * step), rel=1e-4)


def test_one_worker_alone_says_nothing_of_communication() -> None:
    with pytest.raises(NotIdentifiedError, match="no point has more than one worker"):
        fit_all("weak", weak((1,), 0.1, 1e-4, 1e-9), IMAGES)


def test_one_number_of_workers_cannot_tell_shared_from_fixed_work() -> None:
    with pytest.raises(NotIdentifiedError, match="measure more worker counts"):
        fit_all("strong", weak((2,), 0.1, 1e-4, 1e-9), IMAGES)


def test_the_error_on_a_point_is_what_the_model_says_too_much() -> None:
    samples = weak((1, 2, 4), 0.1, 1e-4, 1e-9)
    samples[4] = [{**samples[4][0], "step_s": samples[4][0]["step_s"] * 1.5}]
    fit = fit_all("weak", samples, {})
    assert fit.errors[4] < -0.2
    assert fit.held_out == (4, pytest.approx(1 / 1.5 - 1, rel=1e-3))


def test_no_parameter_is_negative_where_more_workers_are_faster() -> None:
    samples = {1: [sample(1, 0.1, 16)], 2: [sample(2, 0.08, 32, 1e-4, 1e-9)]}
    assert min(fit_all("weak", samples, {}).model.parameters.values()) >= 0


def test_predictions_span_what_each_repeat_alone_would_say() -> None:
    samples = weak((1, 2), 0.1, 1e-4, 1e-9)
    slow = weak((1, 2), 0.1, 2e-4, 1e-9)
    samples = {n: [*samples[n], *slow[n]] for n in samples}
    low, high = fit_all("weak", samples, IMAGES).predictions[2].efficiency_range
    assert low == pytest.approx(0.1 / weak_step(512, 0.1, 2e-4, 1e-9), rel=1e-3)
    assert high == pytest.approx(0.1 / weak_step(512, 0.1, 1e-4, 1e-9), rel=1e-3)
