"""Search, scale and ablate trainers with Ray Train, Ray Tune, Optuna and MLflow; the Python API.

Importing it is quick: what a function needs (torch, Ray, MLflow) is imported when the function is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import (
        CssExperiment,
        Decision,
        Experiment,
        Run,
        ablate,
        compare,
        confirm,
        delete_runs,
        evaluate,
        list_runs,
        load_space,
        noise,
        scale,
        search,
        train,
    )

__all__ = [
    "CssExperiment", "Decision", "Experiment", "Run", "ablate", "compare", "confirm", "delete_runs", "evaluate",
    "list_runs", "load_space", "noise", "scale", "search", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness import api

    return getattr(api, name)
