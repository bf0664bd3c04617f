"""What `bench_recorder.py` measures, at a size that takes a second."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from bench_recorder import main


def test_a_small_search_is_recorded_whole_and_its_requests_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--trials 3 --reports 4 --paced-trials 2 --pace 200 --stores sqlite --json"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)["sqlite"]
    # Created, params and metrics, ended: three requests a trial, and what the search itself takes.
    assert 3 * 3 <= found["backlog"]["requests_per_report"] * 12 <= 3 * 3 + 10
    assert found["paced"]["lag_ms"]["max"] >= found["paced"]["lag_ms"]["median"] > 0
    assert 0 < found["backlog"]["report_us"]["median"] <= found["backlog"]["report_us"]["p99"]
