"""How several drivers work on one study in a database: who makes it, and who draws, keeps and resumes which trial.

Each driver has a folder, a ledger and an MLflow run of its own, and trains the trials that carry its mark. Nobody else
draws, settles or resumes them, so none of them ever waits in the study for whoever asks next: interrupted, a trial
stays RUNNING there until its own driver takes it up again. The configurations that a search starts from belong to the
driver that made the study. To make a trial with its mark is one transaction: a driver that is killed leaves none
without a driver.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from harness.formats import counted, one_line
from harness.trials import SearchSpace, Value
from harness.tuning.marks import DRIVER, num_imported, own_trials
from harness.tuning.objectives import Objective
from harness.tuning.shared import TERMS, Shared
from harness.tuning.study import set_metric_names, starts
from trainers.errors import UsageError

MAKER = "s4.maker"
"""User attribute of a study: which driver makes it."""
MAKING_S = 60.0
"""How long a driver waits for another one that makes the study."""


def check_joining(shared: Shared, warm: bool) -> None:
    """Refuse early what `join` would refuse, and earlier trials for a study that has begun; writes no trial.

    Raises:
        UsageError: the database cannot be reached, or its study means something else.
    """
    study = shared.found()
    if study is None:
        return
    if TERMS in study.user_attrs:
        shared.check(study)
    if warm:
        raise UsageError(
            f"--warm-start must be given by the driver that makes the study, {shared.words} exists: leave it out"
        )


def join(
    shared: Shared, space: SearchSpace, objectives: Sequence[Objective], warm: Sequence[FrozenTrial] = ()
) -> optuna.Study:
    """Make the study, or wait until another driver has made it.

    A database takes each name once, so one driver alone makes it. That one writes down who it is first and the terms
    last: what a driver that is killed in between left half made, it goes on with itself.

    Raises:
        UsageError: the database cannot be reached, its study means something else, or it stays half made.
    """
    storage, directions = shared.storage(lasting=True), [objective.direction for objective in objectives]
    try:
        study = optuna.create_study(storage=storage, study_name=shared.name, directions=directions)
        study.set_user_attr(MAKER, shared.driver)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=shared.name, storage=storage)
    if study.user_attrs.get(MAKER) == shared.driver and TERMS not in study.user_attrs:
        _make(study, shared, space, objectives, warm)
    deadline = time.monotonic() + MAKING_S
    while TERMS not in study.user_attrs:
        if time.monotonic() > deadline:
            raise UsageError(
                f"a study must be made whole by one driver, {shared.words} is not: resume the search that began it, "
                f"or take another --study-name, or remove it (optuna delete-study --study-name {shared.name} "
                f"--storage {shared.url})"
            )
        time.sleep(0.2)
    shared.check(study)
    return study


def _make(
    study: optuna.Study, shared: Shared, space: SearchSpace, objectives: Sequence[Objective],
    warm: Sequence[FrozenTrial],
) -> None:  # fmt: skip
    set_metric_names(study, objectives)
    study.add_trials(warm[num_imported(study) :])
    for params in starts(space)[len(own_trials(study)) :]:
        new_trial(study, shared, params)
    study.set_user_attr(TERMS, dict(shared.terms))


def new_trial(study: optuna.Study, shared: Shared, params: Mapping[str, Value] | None = None) -> int:
    """Make a RUNNING trial of this driver in one transaction, and return its id; `params` are drawn for it."""
    fixed = {"fixed_params": dict(params)} if params else {}
    template = create_trial(state=OptunaState.RUNNING, user_attrs={DRIVER: shared.driver}, system_attrs=fixed)
    return int(study._storage.create_new_trial(study._study_id, template_trial=template))


def open_trials(study: optuna.Study, shared: Shared) -> list[FrozenTrial]:
    """Return the trials of this driver that are not over, in order of number."""
    return [trial for trial in own_trials(study) if shared.trains(trial) and not trial.state.is_finished()]


def num_of_others(shared: Shared) -> int:
    """Return how many trials of the study are other drivers'.

    Raises:
        UsageError: the database cannot be reached.
    """
    study = shared.found()
    return sum(not shared.trains(trial) for trial in own_trials(study)) if study is not None else 0


def standing(shared: Shared, objectives: Sequence[Objective]) -> str:
    """Return what the whole study has, or why that cannot be told, in a line."""
    try:
        study = shared.found()
        if study is None:
            return f"{shared.words} is gone"
        first, trials = num_imported(study), own_trials(study)
    except (UsageError, optuna.exceptions.StorageInternalError) as error:
        return one_line(error)
    complete = [trial for trial in trials if trial.state is OptunaState.COMPLETE]
    line = f"{shared.words} has {counted(len(trials), 'trial')}, {sum(map(shared.trains, trials))} of this driver"
    if not complete:
        return line
    chosen = max if objectives[0].maximise else min
    best = chosen(complete, key=lambda trial: trial.values[0])
    return f"{line}; its best is trial {best.number - first}, {objectives[0].metric} {best.values[0]:.4f}"
