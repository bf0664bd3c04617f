"""The Python API: what the command line does, as functions that return results as data.

    import harness

    results = harness.search("digits_css", space="css_quick", trials=16, name="first")
    results.best.values, results.to_dict()

Every function takes an `Experiment`, or the name of a preset with `settings` by dotted path; writes into
`storage / name`; records in MLflow at `tracking_uri`, in `mlflow_experiment`; starts a Ray of its own, or joins one at
`address`, unless a session is active already. Lines for people go to `console`; without one to stdout, and nowhere with
`quiet`.
"""

from __future__ import annotations

from harness.api.comparisons import ablate, compare, confirm, noise
from harness.api.evaluations import evaluate
from harness.api.runs import delete_runs, list_runs
from harness.api.searches import search
from harness.api.trainings import scale, train
from harness.experiment import CssExperiment
from harness.trials import Experiment
from search_spaces import load_space
from trainers.run import Decision, Run

__all__ = [
    "CssExperiment", "Decision", "Experiment", "Run", "ablate", "compare", "confirm", "delete_runs", "evaluate",
    "list_runs", "load_space", "noise", "scale", "search", "train",
]  # fmt: skip
