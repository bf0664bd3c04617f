"""One side of `bench_search.py`: this project's search, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from search_timeline import EventLog
from search_workload import GRACE, HORIZON, PLACES, REDUCTION, SEED, experiment, space

from harness.cluster import ray_session
from harness.trials import Trial, TrialState
from harness.tuning.run import SearchPlan, run_search


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
    plan = SearchPlan(
        name="warm",
        storage=folder,
        trials=trials,
        grace_steps=GRACE,
        gangs=PLACES,
        reduction_factor=REDUCTION,
        seed=SEED,
        stop_collapsed=False,  # the other side has no such rule
    )
    assert experiment().horizon == HORIZON
    with ray_session("local", cpus=PLACES):
        run_search(plan, experiment(), space(), [Witness(log)])
        log.note("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
