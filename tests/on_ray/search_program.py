"""A driver of its own for tests that kill it: joins a running Ray, and begins or goes on with a run of some kind.

python search_program.py KIND ADDRESS STORAGE MARKS NAME TRIALS STEP_S MIN_FREE_GIB
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
from harness.trials import Value


def main(
    kind: str, address: str, storage: Path, marks: Path, name: str, trials: int, step_s: float, min_free_gib: float
) -> None:
    with ray_session(address):
        if kind in ("search", "shared"):
            options = {"study": f"sqlite:///{storage}/study.db", "study_name": "both"} if kind == "shared" else {}
            reason = search(storage, marks, name, trials, step_s, min_free_gib, **options).reason
        else:
            reason = KINDS[kind](storage, marks, name, trials, step_s)
    sys.stdout.write(f"ended: {reason}\n")


def search(
    storage: Path, marks: Path, name: str, trials: int, step_s: float = 0.0, min_free_gib: float = 0.0, **options: str
) -> Results:
    """Begin or go on with a search in the active Ray session."""
    script = Script([{"quality": 0.1 + 0.8 * (n * 7 % trials) / trials, "name": f"trial-{n}"} for n in range(trials)])
    searches = storage / "searches"
    return api.search(
        Analytic(marks, step_s=step_s), space=script, trials=trials, gangs=1, grace_steps=3, save_interval_s=0,
        min_free_gib=min_free_gib, patience_s=10, name=name, resume=(searches / name / "run.yaml").exists(),
        storage=searches, tracking_uri=f"sqlite:///{storage}/mlflow.db", report=False,
        **options,
    )  # fmt: skip


def train(storage: Path, marks: Path, name: str, trials: int, step_s: float = 0.0) -> None:
    """Begin or go on with a training."""
    searches = storage / "searches"
    api.train(
        Analytic(marks, step_s=step_s), name=name, resume=(searches / name / "run.yaml").exists(), storage=searches,
        tracking_uri=f"sqlite:///{storage}/mlflow.db", report=False,
    )  # fmt: skip


def ablate(storage: Path, marks: Path, name: str, trials: int, step_s: float = 0.0) -> None:
    """Begin or go on with an ablation of as many variants."""
    plan: dict[str, dict[str, Value]] = {f"variant-{n}": {"quality": 0.5 + n / 10} for n in range(trials)}
    api.ablate(
        Analytic(marks, step_s=step_s), plan=plan, seeds=(0,), gangs=1, name=name, storage=storage / "searches",
        tracking_uri=f"sqlite:///{storage}/mlflow.db", report=False,
    )  # fmt: skip


KINDS = {"train": train, "ablate": ablate}


if __name__ == "__main__":
    kind, address, storage, marks, name, trials, step_s, min_free_gib = sys.argv[1:]
    if DIE_AT in os.environ:
        Death(os.environ.pop(DIE_AT)).lie_in_wait()
    main(kind, address, Path(storage), Path(marks), name, int(trials), float(step_s), float(min_free_gib))
