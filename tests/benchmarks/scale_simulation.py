"""A search of any number of trials without Ray: the driver's own code, with virtual gangs in place of trainings.

Searcher, scheduler, Tune's callback, ledger, recorder, retention and progress are the real ones, on real files. What a
trial reports is made up: the metrics of `digits_css`, with a score that depends on the parameters.
"""

from __future__ import annotations

import heapq
import io
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from ray.tune.schedulers import TrialScheduler

from harness.cluster import Slots
from harness.gangs.tune_trial import FINISHED, METRICS, OBJECTIVE, STEP
from harness.ledger import LEDGER, Ledger
from harness.one_driver import sole_driver
from harness.run_folder import LATEST, TRIALS
from harness.tracking.sender import Sender
from harness.tuning.callback import TuneCallback
from harness.tuning.retention import CheckpointRetention
from harness.tuning.run import Search, SearchEnd, _make_scheduler, _make_searcher, num_left, own_study
from harness.tuning.searcher import TruthfulOptunaSearch
from harness.tuning.study import reconcile

GANGS = 8
_EMPTY = io.BytesIO()
torch.save({}, _EMPTY)
CHECKPOINT = _EMPTY.getvalue()
"""Of a training without weights."""


class Ended(NamedTuple):
    """A trial that ended, and the processor time that the driver needed until then, in seconds."""

    at_s: float
    suggested_s: float
    """Of these, with suggestions."""
    suggested: int
    """How many there were."""


class Course:
    """When trials ended."""

    def __init__(self) -> None:
        self.began = time.process_time()
        self.first_s: float | None = None
        """From the beginning to the first suggestion."""
        self.ends: list[Ended] = []
        self.suggested_s, self.suggested = 0.0, 0

    def suggest(self, searcher: TruthfulOptunaSearch, key: str) -> Any:
        """Draw a trial."""
        before = time.process_time()
        if self.first_s is None:
            self.first_s = before - self.began
        config = searcher.suggest(key)
        self.suggested_s, self.suggested = self.suggested_s + time.process_time() - before, self.suggested + 1
        return config

    def end(self) -> None:
        """Take note of a trial's end."""
        self.ends.append(Ended(time.process_time() - self.began, self.suggested_s, self.suggested))


class _Gang:
    """One trial on its way, as Tune's trial: all that scheduler and callback read of it."""

    def __init__(self, key: str, config: Mapping[str, Any], search: Search, names: list[str]) -> None:
        self.trial_id, self.config, self.status = key, config, "RUNNING"
        self.last_result: dict[str, Any] = {}
        self._step, self._every, self._horizon = 0, search.experiment.report_every, search.experiment.horizon
        self._metric, self._names = search.objectives[0].metric, names
        self._draws = np.random.default_rng(config["number"])
        self._quality = quality(config["params"])

    def report(self) -> dict[str, Any]:
        """Train up to the next report, and save an empty checkpoint."""
        self._step = min(self._step + self._every, self._horizon)
        value = self._quality * (1 - math.exp(-3 * self._step / self._horizon)) + self._draws.normal(0, 0.01)
        finished = self._step >= self._horizon
        metrics = dict(zip(self._names, self._draws.random(len(self._names)).tolist(), strict=True))
        metrics |= {"step": float(self._step), "finished": float(finished), self._metric: float(value)}
        folder = Path(self.config["job"].checkpoint_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LATEST).write_bytes(CHECKPOINT)
        return {
            OBJECTIVE: value, STEP: self._step, FINISHED: finished, METRICS: metrics, "done": finished,
            "training_iteration": self._step // self._every,
        }  # fmt: skip


def quality(params: Mapping[str, Any]) -> float:
    """Return the score at the end, in [0, 1]: numbers do best near 0.3, other choices by the length of their names."""
    places = [abs(math.log(abs(value) + 1e-3) - math.log(0.3)) if isinstance(value, float | int) else
              (len(str(value)) % 3) / 3 for value in params.values()]  # fmt: skip
    return 1 / (1 + sum(places) / max(1, len(places)))


def play(search: Search, course: Course) -> SearchEnd:
    """Do what `run_search` does, without Ray."""
    folder, objective, config = search.folder, search.objectives[0], search.config
    names = sorted({*search.experiment.metric_names([{}])} - {"step", "finished", objective.metric})
    with sole_driver(folder):
        history = search.earlier or reconcile(folder, folder.name, objective)
        study = own_study(search)
        left = num_left(search, study, history)
        with closing(Ledger(folder / LEDGER, objective.metric)) as ledger:
            ledger.begin_session({"devices": "none"})
            searcher = _make_searcher(search, study, history)
            scheduler = _make_scheduler(search, searcher, history)
            retention = CheckpointRetention(
                folder / TRIALS, objective, config.keep_checkpoints, history.trials.values(), config.max_checkpoint_gib
            )
            dispatcher = SimpleNamespace(drop=SimpleNamespace(remote=lambda key: None))
            callback = TuneCallback(
                dispatcher, search.experiment.resolve, [ledger, *search.observers, retention], lambda: None,
                history.trials, objective.maximise,
            )  # fmt: skip
            queue: list[tuple[int, int, _Gang]] = []
            for place in range(left + GANGS):
                if queue and (len(queue) == GANGS or place >= left):
                    _run_one(queue, searcher, scheduler, callback)
                    course.end()
                if place < left and not _start(place, queue, search, searcher, scheduler, callback, course, names):
                    left = place  # the other drivers of a shared study drew the others
                if place >= left and not queue:
                    break
            ledger.spent(0.0, 0.0)
    return SearchEnd(callback.trials, None)


def _start(
    place: int, queue: list[tuple[int, int, _Gang]], search: Search, searcher: TruthfulOptunaSearch, scheduler: Any,
    callback: TuneCallback, course: Course, names: list[str],
) -> bool:  # fmt: skip
    """Start a trial where there is one, and return whether there was."""
    key = f"{place:05d}"
    config = course.suggest(searcher, key)
    if isinstance(config, str):
        return False
    gang = _Gang(key, config, search, names)
    scheduler.on_trial_add(None, gang)
    callback.on_trial_start(0, [], gang)
    now = queue[0][0] if queue else 0
    heapq.heappush(queue, (now + 1, place, gang))
    return True


def _run_one(
    queue: list[tuple[int, int, _Gang]], searcher: TruthfulOptunaSearch, scheduler: Any, callback: TuneCallback
) -> None:
    """Let the gangs report in turn until one trial is over, and tell everybody in Tune's order."""
    while True:
        now, place, gang = heapq.heappop(queue)
        result = gang.last_result = gang.report()
        over = result["done"] or scheduler.on_trial_result(None, gang, result) == TrialScheduler.STOP
        if over:
            result["done"] = True
            scheduler.on_trial_complete(None, gang, result)
            searcher.on_trial_complete(gang.trial_id, result=result)
        else:
            searcher.on_trial_result(gang.trial_id, result)
        callback.on_trial_result(0, [], gang, result)
        if over:
            callback.on_trial_complete(0, [], gang)
            return
        heapq.heappush(queue, (now + 1, place, gang))


@contextmanager
def without_ray(course: Course, mlflow: bool) -> Iterator[None]:
    """Have `harness.search` play; without `mlflow` nobody answers there, and the outbox keeps all records."""
    slots = Slots(GANGS, "CPU")
    with ExitStack() as stack:
        for name, value in {
            "harness.api.searches.ray_session": lambda *_, **__: nullcontext(),
            "harness.api.searches.local_slots": lambda *_: slots,
            "harness.api.searches.run_search": lambda search: play(search, course),
            "harness.session.NodeMetrics": lambda *_: nullcontext(),
        }.items():
            stack.enter_context(patch(name, value))
        if not mlflow:
            nobody = ConnectionError("nobody is there")
            stack.enter_context(patch("harness.tracking.recorder.connect_client", side_effect=nobody))
            close = Sender.close
            stack.enter_context(patch.object(Sender, "close", lambda sender, timeout_s: close(sender, 0.0)))
        yield
