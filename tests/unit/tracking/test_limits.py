"""Names and values are changed to what MLflow accepts; MLflow itself is the judge."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import (
    _validate_metric,
    _validate_param,
    _validate_param_name,
    _validate_tag,
    path_not_unique,
)

from harness.tracking.limits import (
    PARAM_LENGTH,
    TAG_LENGTH,
    batches,
    clean_name,
    clean_path,
    clean_step,
    clean_tags,
    clean_value,
    finite,
    flat_params,
)
from harness.tracking.stores import absolute_uri, artifact_location, default_tracking_uri

ANY_TEXT = st.text(st.characters()) | st.text("a/. _-é:", max_size=400)


@given(ANY_TEXT)
def test_any_text_becomes_a_name_that_mlflow_accepts(text: str) -> None:
    _validate_param_name(clean_name(text))
    _validate_metric(clean_name(text), 0.0, 0, 0)
    assert len(clean_name(text)) <= 250


def test_a_good_name_stays_as_it_is() -> None:
    assert clean_name("dev/miou of class-1.x") == "dev/miou of class-1.x"


@given(st.lists(ANY_TEXT, max_size=5, unique=True), st.lists(st.text("x/", min_size=248, max_size=252), unique=True))
def test_two_names_stay_two(names: list[str], long_names: list[str]) -> None:
    both = set(names + long_names)
    assert len({clean_name(name) for name in both}) == len(both)


def test_names_that_are_equal_as_far_as_mlflow_reads_them_stay_two() -> None:
    cut = {clean_name("x" * 300 + end) for end in "ab"}
    changed = {clean_name(name) for name in ("iou/sky & clouds", "iou/sky + clouds", "iou/sky _ clouds")}
    assert (len(cut), len(changed)) == (2, 3)


@given(ANY_TEXT)
def test_any_text_becomes_a_path_inside_of_the_run(text: str) -> None:
    path = clean_path(text)
    assert not path or not path_not_unique(path)


def test_a_path_keeps_its_folders_and_its_ending() -> None:
    assert clean_path("/tables/../a*b.md") == "tables/__/a_b.md"


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4), st.integers(1, 3000))
def test_any_tags_and_params_are_what_mlflow_takes(texts: dict[str, str], times: int) -> None:
    tags = clean_tags({key: value * times for key, value in texts.items()})
    params = flat_params({"a": {key: value * times for key, value in texts.items()}})
    assert (len(tags), len(params)) == (len(texts), len(texts))
    for key, value in tags.items():
        assert _validate_tag(key, value).value == value
        assert len(value.encode()) > 0 or len(value) == 0
        assert len(value) <= TAG_LENGTH
    for key, value in params.items():
        assert _validate_param(key, value).value == value
        assert len(value) <= PARAM_LENGTH


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(4, 50))
def test_a_long_value_is_cut_to_the_limit_and_says_so(text: str, limit: int) -> None:
    head, tail = clean_value(text, limit), clean_value(text, limit, keep_end=True)
    assert max(len(head), len(tail)) <= limit
    assert (head == text) == (len(text) <= limit) or text.endswith("...")
    assert tail[3:] in text


def test_a_list_that_is_cut_ends_between_two_of_its_items() -> None:
    listed = ", ".join(f"loss.lambda_u={index}.125" for index in range(1000))
    kept = clean_value(listed, TAG_LENGTH)
    assert kept.endswith(".125, ...")
    assert TAG_LENGTH - 50 < len(kept) <= TAG_LENGTH


def test_what_no_store_takes_in_a_value_is_replaced() -> None:
    assert clean_value("a\0b\ud800", 10) == "a\ufffdb?"


@given(st.lists(st.integers(0, 50)), st.integers(1, 100))
def test_batches_hold_everything_once_in_order_within_the_room(weights: list[int], room: int) -> None:
    found = list(batches(weights, lambda weight: weight, room))
    assert [weight for batch in found for weight in batch] == weights
    assert all(len(batch) > 0 and (len(batch) == 1 or sum(batch) <= room) for batch in found)


@given(st.floats() | st.integers())
def test_any_step_becomes_one_of_64_bits(step: float) -> None:
    assert -(2**63) <= clean_step(step) < 2**63


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_step_of_64_bits_stays_as_it_is(step: int) -> None:
    assert clean_step(step) == step


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats() | st.integers() | st.just(10**400)))
def test_every_metric_is_kept_or_counted(metrics: dict[str, float]) -> None:
    kept, dropped = finite(metrics)
    assert len(kept) + dropped == len(metrics)
    assert all(math.isfinite(value) for value in kept.values())
    for name, value in kept.items():
        _validate_metric(name, value, 0, 0)


def test_a_config_becomes_dotted_paths() -> None:
    assert flat_params({"a": {"b": {"c": 1}, "d": None}, "e": (1, 2)}) == {"a.b.c": "1", "a.d": "", "e": "(1, 2)"}


def test_a_relative_database_means_the_same_file_everywhere(tmp_path: Path) -> None:
    assert absolute_uri("sqlite:///runs.db") == f"sqlite:///{Path.cwd() / 'runs.db'}"
    assert absolute_uri("http://host:5000") == "http://host:5000"
    assert default_tracking_uri(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_artifacts_lie_beside_the_database_unless_a_server_decides(tmp_path: Path) -> None:
    assert artifact_location(default_tracking_uri(tmp_path)) == (tmp_path / "mlartifacts").as_uri()
    assert artifact_location("postgresql://host/db") == (Path.cwd() / "mlartifacts").as_uri()
    assert artifact_location("http://host:5000") is None
