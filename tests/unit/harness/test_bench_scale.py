"""What `bench_scale.py` measures, at a size that takes seconds."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from bench_scale import SAMPLERS, main, take


def test_a_search_of_30_trials_is_played_and_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trials", "30", "--json"], step=take) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["files_mb"].keys() >= {"run.yaml", "trials.jsonl", "optuna.journal", "outbox.jsonl", "results.json"}
    assert found["doctor"]["findings"] == 2  # MLflow was out of reach: records wait, and it has no run
    assert found["samplers_ms"].keys() == {*SAMPLERS}
    assert all(ms > 0 for ms in found["samplers_ms"].values())
    assert 0 < found["report"]["html_mb"] < found["report"]["folder_mb"]
    assert found["resume"]["first_suggestion_s"] > 0
