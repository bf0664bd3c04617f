"""One side of `bench_search.py`: this project's search, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from search_timeline import EventLog
from search_workload import GRACE, HORIZON, PLACES, REDUCTION, SEED, experiment, space

from harness.cluster import allocate, local_slots
from harness.connection import ray_session
from harness.trials import Trial, TrialState
from harness.tuning.config import SearchConfig
from harness.tuning.run import Search, run_search


class Witness:
    """A TrialObserver that writes an event log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def on_start(self, trial: Trial) -> None:
        self._log.note("start", trial=trial.number)

    def on_report(self, trial: Trial) -> None:
        overheads = {name: value for name, value in trial.metrics.items() if name.startswith("overhead/")}
        self._log.note("report", trial=trial.number, steps=trial.step, **overheads)

    def on_end(self, trial: Trial) -> None:
        failed = trial.state is TrialState.FAIL
        self._log.note("end", trial=trial.number, steps=trial.step, failed=failed)
        if failed:
            print(trial.error, file=sys.stderr)


def main(folder: Path, trials: int) -> None:
    """Search below `folder`."""
    log = EventLog(folder / "events.jsonl")
    config = SearchConfig.of(
        trials=trials, grace_steps=GRACE, reduction_factor=REDUCTION, seed=SEED,
        stop_collapsed=False,  # the other side has no such rule
    )  # fmt: skip
    assert experiment().horizon == HORIZON
    with ray_session("local", cpus=PLACES):
        allocation = allocate(local_slots(), 1, PLACES, trials)
        run_search(Search(folder / "warm", experiment(), space(), config, allocation, observers=[Witness(log)]))
        log.note("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
