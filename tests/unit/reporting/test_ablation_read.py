"""Sources of the report of an ablation: results where they are fresh, the ledger where they are not."""

import json
import os
import shutil
from pathlib import Path

import pytest
from invented.ablations import ODD, PLAIN, STRONG, made_ablation, made_request

from harness.ablation.request import with_seeds, write_request
from harness.ablation.results import RESULTS
from harness.ledger import LEDGER
from harness.models.evaluation import metrics_of
from harness.reporting.ablation.record import read_ablation, read_record
from harness.run_folder import checkpoint_folder, evaluation_file
from harness.tracking.stores import OUTBOX
from trainers.errors import UsageError
from trainers.image_evaluation import load_image_evaluation


def make_older(path: Path) -> None:
    os.utime(path, (1, 1))


def test_fresh_results_are_taken_as_they_are(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a")
    data = json.loads((tmp_path / "a" / RESULTS).read_text())
    (tmp_path / "a" / RESULTS).write_text(json.dumps({**data, "elapsed_s": 12345.0}))
    assert read_ablation(tmp_path / "a").to_dict() == ablation.to_dict() | {"elapsed_s": 12345.0}


@pytest.mark.parametrize("stale", [True, False])
def test_results_that_are_older_than_the_ledger_or_missing_are_made_again_from_it(tmp_path: Path, stale: bool) -> None:
    ablation = made_ablation(tmp_path / "a", failed=[(ODD, 1)], missing=[(ODD, 2)])
    make_older(tmp_path / "a" / RESULTS) if stale else (tmp_path / "a" / RESULTS).unlink()
    expected = ablation.to_dict() | ({} if stale else {"tracking_uri": ""})
    assert read_ablation(tmp_path / "a").to_dict() == expected


def test_scores_of_test_images_are_found_without_results(tmp_path: Path) -> None:
    made_ablation(tmp_path / "a", (0, 1))
    for trial in (tmp_path / "a" / "trials").iterdir():
        shutil.copy(evaluation_file(trial, "dev"), evaluation_file(trial, "test"))
    (tmp_path / "a" / RESULTS).unlink()
    read = read_ablation(tmp_path / "a")
    assert read.scores(ODD, "test/miou").keys() == {0, 1}
    for run in read.outcomes:
        evaluation = load_image_evaluation(
            evaluation_file(checkpoint_folder(tmp_path / "a" / "trials", run.number), "dev")
        )
        assert run.metrics.items() >= metrics_of(evaluation, "test").items()


def test_seeds_that_were_asked_for_after_the_results_are_missing(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", (0, 1))
    make_older(tmp_path / "a" / RESULTS)
    write_request(tmp_path / "a", with_seeds(ablation.request, (0, 1, 2)))
    states = [(run.seed, run.state) for run in read_ablation(tmp_path / "a").outcomes]
    assert states == [(0, "COMPLETE")] * 3 + [(1, "COMPLETE")] * 3 + [(2, "MISSING")] * 3


def test_the_metric_that_was_asked_for_is_found_without_results(tmp_path: Path) -> None:
    made_ablation(tmp_path / "a")
    (tmp_path / "a" / RESULTS).unlink()
    opened = {"op": "open", "time": 1000, "tags": {"s4.objective": "val/accuracy"}}
    (tmp_path / "a" / OUTBOX).write_text(json.dumps(opened) + "\n")
    assert read_ablation(tmp_path / "a").metric == "val/accuracy"


def test_an_ablation_that_has_trained_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_request(tmp_path / "a", made_request())
    with pytest.raises(UsageError, match="has the ablation trained anything"):
        read_ablation(tmp_path / "a")


def test_a_run_that_was_never_looked_at_has_no_score_and_is_named(tmp_path: Path) -> None:
    made_ablation(tmp_path / "a", unseen=[(STRONG, 1)])
    (tmp_path / "a" / RESULTS).unlink()
    ablation = read_ablation(tmp_path / "a")
    assert [*ablation.scores(STRONG, "val/miou")] == [0, 2]
    assert any("strong, seed 1" in text for text in read_record(ablation, tmp_path / "a").missing)


def test_a_folder_without_a_ledger_has_no_curves_and_says_so(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a")
    (tmp_path / "a" / LEDGER).unlink()
    record = read_record(ablation, tmp_path / "a")
    assert (record.curve(PLAIN, "dev/miou"), len(record.missing)) == ({}, 1)


def test_a_curve_is_over_the_steps_and_seeds_that_all_complete_runs_have(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", failed=[(PLAIN, 1)])
    curve = read_record(ablation, tmp_path / "a").curve(PLAIN, "dev/miou")
    assert curve == {step: pytest.approx([0.5 * step / 60, 0.52 * step / 60]) for step in (20, 40, 60)}
