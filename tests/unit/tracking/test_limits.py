"""Names and values are bent to what MLflow accepts; MLflow itself is the judge."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric, _validate_param_name

from harness.tracking.limits import clean_name, clean_value, finite, flat_params
from harness.tracking.stores import absolute_uri, artifact_location, default_tracking_uri


@given(st.text())
def test_any_text_becomes_a_name_that_mlflow_accepts(text: str) -> None:
    _validate_param_name(clean_name(text))
    _validate_metric(clean_name(text), 0.0, 0, 0)
    assert len(clean_name(text)) <= 250


def test_a_good_name_stays_as_it_is() -> None:
    assert clean_name("dev/miou of class-1.x") == "dev/miou of class-1.x"


@given(st.text(), st.integers(4, 50))
def test_a_long_value_is_cut_to_the_limit_and_says_so(text: str, limit: int) -> None:
    head, tail = clean_value(text, limit), clean_value(text, limit, keep_end=True)
    assert max(len(head), len(tail)) <= limit
    assert (head == text) == (len(text) <= limit) or text.endswith("...")
    assert tail[3:] in text


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats()))
def test_every_metric_is_kept_or_counted(metrics: dict[str, float]) -> None:
    kept, dropped = finite(metrics)
    assert len(kept) + dropped == len(metrics)
    assert all(math.isfinite(value) for value in kept.values())


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
