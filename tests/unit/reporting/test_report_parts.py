"""Parts that reports are made of: axes of parameters, importances, times, and a training's sections."""

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented.searches import COMPLETE, PRUNED, SHA, Course, made_search, made_training

from harness.reporting.axes import Axis, axis_of, guessed_axis
from harness.reporting.document import Table
from harness.reporting.figures import png
from harness.reporting.parameters import importances, quantile
from harness.reporting.record import Span, lanes, read_record
from harness.reporting.reports import training_document
from harness.reporting.results import short
from harness.reporting.themes import DARK
from search_spaces import load_space
from trainers.errors import UsageError


def test_an_axis_is_as_the_sampler_sees_the_range() -> None:
    assert Axis("a", "linear", 0, 4).place(1) == 0.25
    assert Axis("a", "log", 0.01, 1).place(0.1) == pytest.approx(0.5)
    assert Axis("a", "one minus", 0.9, 0.999).place(0.99) == pytest.approx(0.5)
    assert Axis("a", "choices", 0, 1, ("x", "y")).place("y") == 0.75


@given(st.floats(1e-4, 1e3), st.floats(1.5, 1e4), st.sampled_from(["linear", "log"]))
def test_ticks_lie_on_the_axis_in_order_and_apart(low: float, factor: float, scale: str) -> None:
    ticks = Axis("a", scale, low, low * factor).ticks()  # type: ignore[arg-type]
    places = [place for place, _ in ticks]
    assert 2 <= len(ticks) <= 9
    assert places == sorted(places)
    assert places[0] >= -1e-6
    assert places[-1] <= 1 + 1e-6


@given(st.floats(1e-4, 1e3), st.floats(1.05, 1e4), st.sampled_from(["linear", "log"]))
def test_labels_of_ticks_are_short_and_lie_where_they_say(low: float, factor: float, scale: str) -> None:
    axis = Axis("a", scale, low, low * factor)  # type: ignore[arg-type]
    for place, label in axis.ticks():
        at = axis.place(float(label))
        assert at is not None
        assert at == pytest.approx(place, abs=0.005)
        assert len(label.replace(".", "").lstrip("0")) <= 7


def test_a_narrow_range_has_labels_of_three_digits() -> None:
    labels = [label for _, label in Axis("delta_s", "linear", 0.811576, 0.997408).ticks()]
    assert labels == ["0.812", "0.85", "0.9", "0.95", "0.997"]


@pytest.mark.parametrize("name", ["css", "css_quick"])
def test_every_published_value_has_its_place(name: str) -> None:
    space = load_space(name)
    for parameter in space.parameters:
        if parameter.path in space.baseline:
            value = space.baseline[parameter.path]
            place = axis_of(parameter, [value]).place(value)
            assert place is not None
            assert 0 <= place <= 1


def test_an_axis_of_unknown_range_is_guessed_from_its_values() -> None:
    assert guessed_axis("a", [0.001, 1.0]).scale == "log"
    assert guessed_axis("a", [1.0, 2.0]).scale == "linear"
    assert guessed_axis("a", ["x", True, "x"]).choices == ("x", True)


def test_paths_are_short_where_that_is_clear() -> None:
    assert short(["a.x", "b.y", "c.y"]) == ["x", "b.y", "c.y"]


def test_the_parameter_that_decides_is_the_most_important(tmp_path: Path) -> None:
    """The value is a function of lambda_u alone, with its best at one end of the range."""
    numbers = range(40)
    lambdas = [0.2 * 25 ** ((number * 0.37) % 1) if number else 1.0 for number in numbers]
    courses = [Course(values=[1 / (1 + value)] * 6) for value in lambdas]
    [found] = importances(read_record(made_search(tmp_path / "s", courses, scheduler="none")), [])
    assert next(iter(found.shares)) == "loss.lambda_u"
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert (found.value, found.trials) == ("best value of complete trials", 40)


def test_a_parameter_that_never_moved_is_not_important(tmp_path: Path) -> None:
    """Made-up trials leave lambda_c and the momentum as published; Optuna alone gives these two 0.04 each."""
    courses = [Course(values=[(0.37 * number) % 1] * 6) for number in range(200)]
    [found] = importances(read_record(made_search(tmp_path / "s", courses, scheduler="none")), [])
    assert set(found.shares) == {"loss.lambda_u", "thresholds.delta_u", "css.label_strategy"}


def test_trials_that_were_stopped_count_at_the_rung_that_they_reached(tmp_path: Path) -> None:
    courses = [Course(PRUNED, (0.01 * number, 0.3)) for number in range(12)]
    record = read_record(made_search(tmp_path / "s", [Course(COMPLETE), *courses]))
    assert [(one.value, one.trials) for one in importances(record, [20, 60])] == [("value at step 20", 13)]


def test_nothing_is_said_of_importance_where_there_are_few_trials(tmp_path: Path) -> None:
    assert importances(read_record(made_search(tmp_path / "s")), [20]) == []


@pytest.mark.parametrize(("trials", "share"), [(10, 0.5), (20, 0.25), (50, 0.1), (1000, 0.1)])
def test_good_trials_are_five_at_least_and_a_tenth(trials: int, share: float) -> None:
    assert quantile(trials) == share
    assert math.ceil(share * trials) >= 5


def test_times_are_those_of_the_ledger(tmp_path: Path) -> None:
    record = read_record(made_search(tmp_path / "s"))
    assert record.info is not None
    assert record.info.revision == SHA
    assert record.times.spans[:3] == [Span(0, 0.0, 9.0, "COMPLETE"), Span(1, 0.0, 9.0, "COMPLETE"),
                               Span(2, 10.0, 19.0, "PRUNED")]  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 20)), min_size=1, max_size=30))
def test_spans_of_a_lane_do_not_overlap_and_there_are_no_more_lanes_than_needed(
    pairs: list[tuple[float, float]],
) -> None:
    spans = sorted(Span(index, start, start + length, "COMPLETE") for index, (start, length) in enumerate(pairs))
    spans.sort(key=lambda span: span.start_s)
    rows = lanes(spans)
    for lane in set(rows):
        own = [span for span, row in zip(spans, rows, strict=True) if row == lane]
        assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(own))
    at_once = max(sum(one.start_s <= span.start_s < one.end_s for one in spans) for span in spans)
    assert max(rows) + 1 == at_once


def test_a_training_has_curves_and_classes(tmp_path: Path) -> None:
    document = training_document(read_record(made_training(tmp_path / "t")))
    assert document.lead == "The training reached dev/miou 0.5800 at step 120 of 120."
    assert [figure.name for figure in document.figures] == [
        "objective", "losses", "shares", "quality", "health", "timeline",
    ]  # fmt: skip
    [classes] = [block for block in document.tables if isinstance(block, Table) and block.name == "classes"]
    assert list(classes.rows) == [["background", 0.81, 0.81], ["seven_8", 0.225, 0.225]]
    for figure in document.figures:
        assert png(figure.draw, DARK, figure.size).startswith(b"\x89PNG")


def test_the_picture_of_a_training_is_shown_where_there_is_one(tmp_path: Path) -> None:
    folder = made_training(tmp_path / "t")
    assert training_document(read_record(folder)).pictures == []
    (folder / "predictions.png").write_bytes(b"png")
    assert [one.path for one in training_document(read_record(folder)).pictures] == [folder / "predictions.png"]


def test_a_training_that_was_killed_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    document = training_document(read_record(made_training(tmp_path / "t", steps=60)))
    assert document.lead == "No trial reached the horizon of 120 steps yet; 1 was begun."
    [commands] = [section for section in document.sections if section.title == "Go on"]
    assert "s4 train --resume --name t" in str(commands)


def test_an_empty_folder_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="results must lie in"):
        read_record(tmp_path)
