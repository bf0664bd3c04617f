"""Records in PostgreSQL, and on an MLflow server over it: each once, also where the server is killed meanwhile."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from bench_recorder import NAME, Size, main, outage
from postgres import Postgres, lacking, serving
from tracking_server import Server

from harness.tracking.stores import connect_client, find_runs

pytestmark = [pytest.mark.skipif(bool(lacking()), reason=lacking()), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with serving(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), store=postgres.database("served"))
    server.start()
    yield server
    server.kill()


def test_a_search_is_recorded_whole_in_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--trials 3 --reports 4 --paced-trials 2 --pace 200 --stores postgres --json"
    assert main(words.split()) == 0  # it asserts that nothing is pending, rejected or missing
    found = json.loads(capsys.readouterr().out)["postgres"]
    assert found["backlog"]["requests_per_report"] > 0


def test_a_server_that_is_killed_loses_no_record_and_has_none_twice(server: Server, tmp_path: Path) -> None:
    size = Size(trials=0, reports=6, paced_trials=10, pace=20.0, outage_s=1.0)
    assert outage(server, tmp_path, size)["reports_while_down"] > 0
    client = connect_client(server.uri)
    experiment = client.get_experiment_by_name("outage").experiment_id
    runs = [run for run in find_runs(client, experiment, f"tags.`s4.search` = '{NAME}'") if "s4.trial" in run.data.tags]
    assert len(runs) == size.paced_trials
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "dev/miou")]
        assert steps == [50 * at for at in range(1, 7)]
