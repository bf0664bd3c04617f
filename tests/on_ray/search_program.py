"""A driver of its own for tests that kill it: joins a running Ray, and begins or goes on with a search.

python search_program.py ADDRESS STORAGE NAME TRIALS STEP_S MIN_FREE_GIB
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from analytic import Analytic, Script
from deadly import DIE_AT, Death

from harness import api
from harness.connection import ray_session
from harness.reporting.results import Results


def main(address: str, storage: Path, marks: Path, name: str, trials: int, step_s: float, min_free_gib: float) -> None:
    with ray_session(address):
        results = search(storage, marks, name, trials, step_s, min_free_gib)
    sys.stdout.write(f"ended: {results.reason}\n")


def search(
    storage: Path, marks: Path, name: str, trials: int, step_s: float = 0.0, min_free_gib: float = 0.0
) -> Results:
    """Begin or go on with a search in the active Ray session."""
    script = Script([{"quality": 0.1 + 0.8 * (n * 7 % trials) / trials, "name": f"trial-{n}"} for n in range(trials)])
    searches = storage / "searches"
    return api.search(
        Analytic(marks, step_s=step_s), space=script, trials=trials, gangs=1, grace_steps=3, save_interval_s=0,
        min_free_gib=min_free_gib, patience_s=10, name=name, resume=(searches / name / "run.yaml").exists(),
        storage=searches, tracking_uri=f"sqlite:///{storage}/mlflow.db", report=False,
    )  # fmt: skip


if __name__ == "__main__":
    address, storage, marks, name, trials, step_s, min_free_gib = sys.argv[1:]
    if DIE_AT in os.environ:
        Death(os.environ.pop(DIE_AT)).lie_in_wait()
    main(address, Path(storage), Path(marks), name, int(trials), float(step_s), float(min_free_gib))
