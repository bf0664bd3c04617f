from __future__ import annotations

import subprocess
import sys

import pytest

from harness.gangs.messages import Report
from harness.gangs.tune_trial import as_result


def test_a_report_becomes_a_result_that_tune_can_decide_on() -> None:
    metrics = {"step": 3.0, "finished": 0.0, "dev/miou": 0.4, "train/loss/total": 1.0}
    expected = {"objective": 0.4, "step": 3, "finished": False, "metrics": metrics, "done": False}
    assert as_result(Report(metrics), ["dev/miou"]) == expected


def test_the_report_at_the_horizon_is_done() -> None:
    result = as_result(Report({"step": 9.0, "finished": 1.0, "dev/miou": 0.4}), ["dev/miou"])
    assert (result["finished"], result["done"]) == (True, True)


def test_a_failure_is_done_and_has_no_objective() -> None:
    expected = {"error": "broken", "interrupted": False, "finished": False, "metrics": {}, "done": True}
    assert as_result(Report({}, "broken"), ["dev/miou"]) == expected


def test_a_report_without_the_objective_is_a_failure() -> None:
    result = as_result(Report({"step": 3.0, "finished": 0.0}), ["dev/miou"])
    assert (
        result["error"]
        == "a report must hold the objective 'dev/miou', this one holds finished, step: choose one of these"
    )


@pytest.mark.parametrize("module", ["harness.gangs.tune_trial", "harness.gangs.dispatcher"])
def test_a_thin_actor_starts_without_torch_and_mlflow(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
