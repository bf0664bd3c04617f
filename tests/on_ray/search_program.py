"""A driver of its own for tests that kill it: joins a running Ray, and begins or goes on with a search.

python search_program.py ADDRESS STORAGE NAME TRIALS STEP_S MIN_FREE_GIB
"""

from __future__ import annotations

import sys
from pathlib import Path

from analytic import Analytic, Script

from harness.cluster import ray_session
from harness.search.run import SearchPlan, run_search
from harness.search.study import reconcile
from harness.tracking.recorder import MlflowRecorder


def main(address: str, storage: Path, marks: Path, name: str, trials: int, step_s: float, min_free_gib: float) -> None:
    plan = SearchPlan(
        name=name,
        storage=storage / "searches",
        trials=trials,
        grace_steps=3,
        save_interval_s=0,
        min_free_gib=min_free_gib,
        patience_s=10,
    )
    script = Script([{"quality": 0.1 + 0.8 * (n * 7 % trials) / trials, "name": f"trial-{n}"} for n in range(trials)])
    earlier = reconcile(plan.folder, plan.name, plan.objective)
    with (
        ray_session(address),
        MlflowRecorder(
            f"sqlite:///{storage}/mlflow.db", "s4", "search", name, {}, storage / "searches" / name / "outbox.jsonl"
        ) as recorder,
    ):
        recorder.close_finished(earlier.trials.values())
        end = run_search(plan, Analytic(marks, step_s=step_s), script, [recorder], earlier)
    sys.stdout.write(f"ended: {end.reason}\n")


if __name__ == "__main__":
    address, storage, marks, name, trials, step_s, min_free_gib = sys.argv[1:]
    main(address, Path(storage), Path(marks), name, int(trials), float(step_s), float(min_free_gib))
