"""A stand-in for training: a closed form of the overrides and the step."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.trials import Value
from trainers.checkpoint import load_checkpoint
from trainers.errors import UsageError
from trainers.run import Decision, Run


class Counter:
    """A state that is one number."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}


@dataclass(frozen=True)
class Analytic:
    """Metric: quality * step / horizon. `behave` makes trials misbehave."""

    horizon: int = 9
    metric: str = "dev/miou"
    step_s: float = 0.0
    lie_about_config: bool = False

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        config = {"quality": 0.5, "behave": "well", **overrides}
        if config["quality"] > 10:
            raise UsageError(f"quality must be at most 10, got {config['quality']}: lower it")
        return config, hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def warm_up(self, run: Run) -> None:
        pass

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        config, config_hash = self.resolve(overrides)
        state = Counter()
        restored = run.restore_from()
        if restored is not None:
            state.step = load_checkpoint(restored)["step"]
        first = None
        while state.step < self.horizon:
            time.sleep(self.step_s)
            state.step += 1
            first = first or time.time()
            metrics = {
                "step": state.step,
                "finished": float(state.step == self.horizon),
                "dev/miou": config["quality"] * state.step / self.horizon,
                "random": torch.rand(()).item(),
                "pid": os.getpid(),
                "time/first_step_unix": first,
            }
            if run.report(metrics, state) is Decision.STOP:
                break
        return config_hash
