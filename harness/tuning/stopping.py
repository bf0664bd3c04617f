"""Stopping rules of a search and of its trials. Arithmetic only: the caller measures and acts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from harness.tuning.config import SearchConfig
from harness.tuning.marks import own_trials
from trainers.errors import UsageError

MIN_TRIALS = 20
"""Complete trials before Optuna's terminator may console; its own default."""
COLLAPSED_ENTROPY = 0.02
"""Normalised entropy of the predicted classes below which a teacher counts as collapsed.

Chosen, not measured. With 21 classes it means that about 99.3 % of the pixels are given one class, the rest spread
evenly; with 11 classes, 99.4 %. Data whose truth is that one-sided need a lower one, or none.
"""
RISE = 5.0
"""How many times the threshold the entropy must have reached, before falling below it is a collapse. Chosen, too."""
ENTROPY = "health/predicted_entropy"


def why_stop(config: SearchConfig, elapsed_s: float, device_s: float, study: optuna.Study) -> str | None:
    """Return why a search must draw no more trials; none while it may. Both times include those of earlier drivers."""
    if config.max_hours is not None and elapsed_s >= 3600 * config.max_hours:
        return f"the cap of {config.max_hours:g} hours is reached"
    if config.max_device_hours is not None and device_s >= 3600 * config.max_device_hours:
        return f"the cap of {config.max_device_hours:g} device-hours is reached"
    if config.terminator and stagnates(study, config.stagnation):
        return f"none of the last {config.stagnation} complete trials was better"
    return None


def stagnates(study: optuna.Study, trials: int, min_trials: int = MIN_TRIALS) -> bool:
    """Return whether the last `trials` complete trials of the search brought nothing better.

    By Optuna's BestValueStagnationEvaluator; its Terminator waits for one trial more than the number that it is given.
    Its regret bound is not used: that must be told the error of an objective by the scores of a cross-validation,
    which no trial here has. Trials of an earlier search do not count, neither as better ones nor towards the number.
    Nothing stagnates before `min_trials` are complete.

    Raises:
        UsageError: the study has several objectives, for which there is no best value.
    """
    if len(study.directions) > 1:
        raise UsageError(
            f"the terminator must have one objective, got {len(study.directions)}: turn it off or name one objective"
        )
    complete = [trial for trial in own_trials(study) if trial.state is TrialState.COMPLETE]
    if len(complete) < max(min_trials, 1):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and leaves Optuna with version 6
        from optuna.terminator import BestValueStagnationEvaluator

        evaluator = BestValueStagnationEvaluator(max_stagnation_trials=trials)
    return bool(evaluator.evaluate(complete, study.direction) <= 0)


class Health:
    """Which trials are beyond saving: those whose teacher has come to predict a single class.

    *Come to*: a young teacher predicts one class too, the background, so a collapse is a fall from what it predicted
    before. Only the entropy of the predictions is judged. The kept shares (`kept/CLASS`) move earlier, but a threshold
    on them cannot tell a collapse from a high `delta_u` early in training, when few pixels are sure.
    """

    def __init__(self, on: bool = True, threshold: float = COLLAPSED_ENTROPY) -> None:
        """Watch trials by the normalised entropy, in [0, 1], which must have been `RISE` thresholds before."""
        self._on = on
        self._threshold = threshold
        self._highest: dict[str, float] = {}
        self._reasons: dict[str, str] = {}

    def check(self, trial_id: str, metrics: Mapping[str, float]) -> str | None:
        """Return why a trial with these metrics is stopped; none where it is well, or nothing is known of it."""
        entropy = metrics.get(ENTROPY, math.nan)
        if not self._on or not math.isfinite(entropy):
            return None
        highest = self._highest[trial_id] = max(entropy, self._highest.get(trial_id, 0.0))
        if entropy < self._threshold and highest >= RISE * self._threshold:
            self._reasons[trial_id] = (
                f"the teacher collapsed: {ENTROPY} fell from {highest:.3g} to {entropy:.3g}, below {self._threshold:g}"
            )
        return self.reason(trial_id)

    def reason(self, trial_id: str) -> str | None:
        """Return why a trial was stopped; none where it was not."""
        return self._reasons.get(trial_id)
