"""A search of 1000 trials whose driver is killed ten times.

    python tests/benchmarks/killed_driver.py
    python tests/benchmarks/killed_driver.py --trials 60 --kills 3 --seed 1

A driver is a process of its own (`on_ray/search_program.py`) on one Ray, with a stand-in for training that takes no
time: ASHA, a report a step, a checkpoint a report, records in a SQLite file. At moments spread evenly over the search,
and moved by up to a second at random, it is sent SIGKILL and a driver goes on in its place. The table says how many
trials were over at each kill, and how long the next driver took from its start to a first report. At the end ledger,
Optuna's journal and MLflow must tell the same story, every trial and every report of it once; the exit code is 1 where
they do not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ON_RAY = Path(__file__).parents[1] / "on_ray"
sys.path.append(str(ON_RAY))

NAME = "killed"
LIMIT_S = 600.0
"""How long a driver may take to come to its next kill, or to its end."""
OVER = ("COMPLETE", "PRUNED", "FAIL")
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


class Kill(NamedTuple):
    """A driver that was killed, and the one that went on."""

    over: int
    """Trials that were over by then."""
    report_s: float
    """From the start of the next driver to its first report."""


class Watch:
    """Follows a ledger while it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self.over = self.reports = 0

    def look(self) -> None:
        """Count what was written since the last look."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            self.reports += event["event"] == "report"
            self.over += event["event"] == "end" and event["state"] in OVER


def killed(storage: Path, trials: int, kills: int, seed: int) -> list[Kill]:
    """Search to the end, and return what the kills cost.

    Raises:
        SystemExit: a driver ended by itself, or did not come to its end.
    """
    from drivers import start_driver

    draws, done, watch = random.Random(seed), list[Kill](), Watch(storage / "searches" / NAME / "trials.jsonl")
    driver = start_driver(storage, NAME, trials, step_s=0.0)
    for place in range(1, kills + 1):
        _wait(driver, storage, lambda goal=place * trials // (kills + 1): _over(watch) >= goal)
        time.sleep(draws.random())
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        watch.look()
        over, reports, began = watch.over, watch.reports, time.monotonic()
        driver = start_driver(storage, NAME, trials, step_s=0.0)
        _wait(driver, storage, lambda known=reports: _reports(watch) > known)
        done.append(Kill(over, time.monotonic() - began))
        print(
            f"kill {place}: {over} trials over, a report after {done[-1].report_s:.1f} s", file=sys.stderr, flush=True
        )
    if driver.wait(LIMIT_S):
        raise SystemExit(_words(storage))
    return done


def _over(watch: Watch) -> int:
    watch.look()
    return watch.over


def _reports(watch: Watch) -> int:
    watch.look()
    return watch.reports


def _wait(driver: subprocess.Popen[bytes], storage: Path, come: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not come():
        if driver.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(_words(storage))
        time.sleep(0.05)


def _words(storage: Path) -> str:
    return f"a driver did not do what it should; its last words:\n{(storage / 'driver.log').read_text()[-3000:]}"


def faults(storage: Path, trials: int) -> Iterator[str]:
    """Yield what the books of a search that ended do not agree on, once all records were sent."""
    from harness.ledger import LEDGER, json_lines, read_ledger
    from harness.session import send_records
    from harness.tuning.study import open_study

    folder, uri = storage / "searches" / NAME, f"sqlite:///{storage}/mlflow.db"
    delivery = send_records(folder, uri)
    if delivery.pending:
        yield f"{delivery.pending} records did not reach MLflow: {delivery.note}"
    ledger, study = read_ledger(folder / LEDGER).trials, open_study(folder, NAME)
    reports = {number: dict(trial.values) for number, trial in ledger.items()}
    states = {number: str(trial.state) for number, trial in ledger.items()}
    if sorted(ledger) != list(range(trials)) or not set(states.values()) <= {"COMPLETE", "PRUNED"}:
        yield f"the ledger has {len(ledger)} trials, {dict(Counter(states.values()))}"
    events = (event for event in json_lines(folder / LEDGER) if event["event"] == "report")
    twice = [key for key, count in Counter((e["trial"], e["metrics"]["step"]) for e in events).items() if count > 1]
    if twice:
        yield f"the ledger has {len(twice)} reports twice, {twice[:5]} among them"
    theirs = study.trials if study is not None else []
    if {trial.number: trial.state.name for trial in theirs} != states:
        yield "Optuna's trials are others, or ended otherwise, than the ledger's"
    if {trial.number: trial.intermediate_values for trial in theirs} != reports:
        yield "Optuna has other reports than the ledger"
    yield from _faults_of_mlflow(uri, states, reports)


def _faults_of_mlflow(uri: str, states: dict[int, str], reports: dict[int, dict[int, float]]) -> Iterator[str]:
    from harness.tracking.stores import EXPERIMENT, connect_client, find_runs

    client = connect_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = list(find_runs(client, experiment.experiment_id, f"tags.`s4.search` = '{NAME}'"))
    parents = [run.info.status for run in runs if run.data.tags["s4.kind"] == "search"]
    if parents != ["FINISHED"]:
        yield f"MLflow has the parent runs {parents}"
    children = [run for run in runs if run.data.tags["s4.kind"] == "trial"]
    statuses = sorted((int(run.data.tags["s4.trial"]), run.info.status) for run in children)
    if statuses != sorted((number, STATUS[state]) for number, state in states.items()):
        yield f"MLflow has {len(children)} runs of trials, or they ended otherwise than the ledger's {len(states)}"
    for run in children:
        points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "dev/miou")]
        number = int(run.data.tags["s4.trial"])
        if sorted(points) != sorted(reports[number].items()):
            yield f"trial {number} has the reports {sorted(points)} in MLflow and {reports[number]} in the ledger"


@contextmanager
def a_ray() -> Iterator[None]:
    """Start a Ray whose workers find the stand-in for training."""
    from harness.connection import ray_session

    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (str(ON_RAY), before) if path)
    with ray_session("local", cpus=2):
        yield


def main(words: Sequence[str] | None = None) -> int:
    """Search, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        with a_ray():
            kills = killed(Path(place), asked.trials, asked.kills, asked.seed)
        searched_s = time.monotonic() - began
        found = list(faults(Path(place), asked.trials))
    sent_s = time.monotonic() - began - searched_s
    print("| kill | trials over then | seconds to the next driver's report |\n|---|---|---|")
    for number, kill in enumerate(kills, start=1):
        print(f"| {number} | {kill.over} | {kill.report_s:.1f} |")
    print(f"{asked.trials} trials in {searched_s:.0f} s, {sent_s:.0f} s to send and check")
    for fault in found or ["ledger, Optuna and MLflow agree: every trial and every report once"]:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
