"""What an earlier search found, as trials that a sampler can learn from: from its Optuna study, or from MLflow.

Trials are taken only where they mean the same here: every parameter of the space is known and inside its range, and
nothing else was searched. What the earlier base config was is for the caller to compare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.formats import counted, one_line
from harness.run_folder import RUN, read_run
from harness.tracking.limits import PARAM_LENGTH, TAG_LENGTH, clean_name, clean_value
from harness.tracking.stores import absolute_uri, connect_client, find_runs
from harness.trials import Value
from harness.tuning.marks import MARK
from harness.tuning.objectives import Constraint, Objective, values_of
from harness.tuning.shared import shared_of
from harness.tuning.study import JOURNAL
from search_spaces import Parameter, Space, SpaceError
from search_spaces.files import read_yaml
from trainers.errors import UsageError

MLFLOW = "mlflow:"

OUTSIDE = "a parameter is missing, unknown or outside its range"
NO_VALUE = "an objective is missing"
NO_CONSTRAINT = "a constraint's metric is missing"


class Earlier(NamedTuple):
    """What was taken from an earlier search, and what was not."""

    trials: list[FrozenTrial]
    """COMPLETE ones, and PRUNED ones with their intermediate values; ready for `study.add_trials`."""
    left_out: Counter[str]
    """How many finished trials were left out, by reason."""

    def words(self) -> str:
        """Return one line for the user."""
        reasons = "".join(f", {count} left out because {reason}" for reason, count in self.left_out.most_common())
        return f"{counted(len(self.trials), 'earlier trial')} taken{reasons}"


class _Found(NamedTuple):
    """An earlier trial, in raw params of the present space."""

    state: TrialState
    params: Mapping[str, Value]
    values: Sequence[float] | None
    constraints: Mapping[str, float]
    intermediate: Mapping[int, float]


def earlier_trials(
    source: str,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    *,
    tracking_uri: str | None = None,
) -> Earlier:
    """Return the trials of an earlier search as trials of this one.

    Args:
        source: a search's folder, of a shared study for the trials of all its drivers, or an `optuna.journal`; or
            `mlflow:EXPERIMENT/SEARCH`, or `mlflow:RUN_ID` of the search's parent run. MLflow has complete ones alone.
        constraints: every trial must know all of them, for Optuna's GP wants the same constraints from every trial.
        tracking_uri: MLflow's store, where the source is there.

    Raises:
        UsageError: there is no such search, or its objectives are others.
    """
    if source.startswith(MLFLOW):
        if not tracking_uri:
            raise UsageError(f"with the source {source!r} a tracking URI must be given, got none: pass --tracking-uri")
        trials = _from_mlflow(source.removeprefix(MLFLOW), space, objectives, constraints, tracking_uri)
    else:
        trials = _from_study(source, objectives)
    earlier = Earlier([], Counter())
    for trial in trials:
        reason = _why_not(trial, space, objectives, constraints)
        if reason is None:
            earlier.trials.append(_as_trial(trial, space, constraints, source))
        else:
            earlier.left_out[reason] += 1
    return earlier


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Return the distribution from which the sampler draws the raw value."""
    if parameter.kind == "categorical":
        return CategoricalDistribution(parameter.raw_choices)
    low, high = parameter.raw_range
    if parameter.kind == "int":
        return IntDistribution(int(low), int(high), log=parameter.log, step=parameter.step)
    return FloatDistribution(low, high, log=parameter.log or parameter.one_minus)


def _why_not(
    found: _Found, space: Space, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> str | None:
    try:
        space.overrides(found.params)
    except SpaceError:
        return OUTSIDE
    if found.values is None and (found.state is TrialState.COMPLETE or len(objectives) == 1):
        return NO_VALUE
    if any(str(constraint) not in found.constraints for constraint in constraints):
        return NO_CONSTRAINT
    return None


def _as_trial(found: _Found, space: Space, constraints: Sequence[Constraint], source: str) -> FrozenTrial:
    names = [str(constraint) for constraint in constraints]
    known = [parameter for parameter in space.parameters if parameter.name in found.params]
    return create_trial(
        state=found.state,
        params=dict(found.params),
        distributions={parameter.name: distribution_of(parameter) for parameter in known},
        values=found.values,
        user_attrs={MARK: source},
        intermediate_values=dict(found.intermediate),
        constraints={name: found.constraints[name] for name in names} or None,
    )


def _from_study(source: str, objectives: Sequence[Objective]) -> Iterator[_Found]:
    path = Path(source)
    shared = shared_of(path, read_run(path)) if (path / RUN).exists() else None
    path = path / JOURNAL if path.is_dir() else path
    if shared is None and not path.is_file():
        raise UsageError(f"an earlier search must be a folder with {JOURNAL}, the file or {MLFLOW}..., got {source!r}")
    study = _study(path) if shared is None else shared.found()
    if study is None:
        raise UsageError(f"{source} must have a study, {shared.words if shared else path} is gone: put it back")
    columns = _columns(study, objectives, source)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if MARK in trial.user_attrs:  # it belongs to a search before that one
            continue
        values = trial.values if trial.values and len(trial.values) == len(study.directions) else None
        yield _Found(
            trial.state,
            trial.params,
            [values[column] for column in columns] if values else None,
            trial.constraints,
            trial.intermediate_values if columns == [0] and len(objectives) == 1 else {},
        )


def _study(path: Path) -> optuna.Study:
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        names = optuna.get_all_study_names(storage)
    except Exception as error:  # whatever a file that is none makes Optuna raise
        raise UsageError(f"{path} must be an Optuna journal, reading it failed: {one_line(error)}") from None
    if len(names) != 1:
        raise UsageError(f"{path} must hold one study, it holds {len(names)}: give the journal of one search")
    return optuna.load_study(study_name=names[0], storage=storage)


def _columns(study: optuna.Study, objectives: Sequence[Objective], source: str) -> list[int]:
    """Return which value of an earlier trial is which objective.

    A study that does not name its metrics must have as many, in the same directions.
    """
    directions = [direction.name.lower() for direction in study.directions]
    names = study.metric_names or [objective.metric for objective in objectives]
    had = dict(zip(names, zip(range(len(directions)), directions, strict=False), strict=False))
    columns = [
        had[wanted.metric][0] for wanted in objectives if had.get(wanted.metric, ("", ""))[1] == wanted.direction
    ]
    if len(columns) < len(objectives) or (study.metric_names is None and len(directions) != len(objectives)):
        given = ", ".join(
            f"{name} ({direction})" for name, direction in zip(study.metric_names or [], directions, strict=False)
        )
        raise UsageError(
            f"{source} must have had the objectives {', '.join(map(str, objectives))}, "
            f"it had {given or ', '.join(directions)}: start from another search"
        )
    return columns


def _from_mlflow(
    where: str, space: Space, objectives: Sequence[Objective], constraints: Sequence[Constraint], tracking_uri: str
) -> Iterator[_Found]:
    for params, metrics in _runs(where, tracking_uri):
        wanted = [objective.metric for objective in objectives] + [bound.metric for bound in constraints]
        measured = {name: metrics[clean_name(name)] for name in wanted if clean_name(name) in metrics}
        violations = {str(bound): bound.violation(measured) for bound in constraints if bound.metric in measured}
        values = values_of(measured, objectives)
        yield _Found(TrialState.COMPLETE, _raw_params(params, space), values, violations, {})


def _runs(where: str, tracking_uri: str) -> Iterator[tuple[Mapping[str, str], Mapping[str, float]]]:
    """Yield params and last metrics of the complete trials of a search."""
    from mlflow.exceptions import MlflowException

    condition = "tags.`s4.kind` = 'trial' and tags.`s4.state` = 'COMPLETE'"
    try:
        client = connect_client(absolute_uri(tracking_uri))
        if re.fullmatch(r"[0-9a-f]{32}", where):
            experiment = client.get_run(where).info.experiment_id
            condition += f" and tags.`mlflow.parentRunId` = '{where}'"
        else:
            name, _, search = where.rpartition("/")
            known = client.get_experiment_by_name(name) if name and search and "'" not in search else None
            if known is None:
                raise UsageError(
                    f"a source in MLflow must be {MLFLOW}EXPERIMENT/SEARCH or {MLFLOW}RUN_ID of what exists in "
                    f"{tracking_uri}, got {MLFLOW + where!r}: correct it"
                )
            experiment = known.experiment_id
            condition += f" and tags.`s4.search` = '{clean_value(search, TAG_LENGTH)}'"
        runs = list(find_runs(client, experiment, condition))
    except MlflowException as error:
        words = one_line(error)
        raise UsageError(f"MLflow at {tracking_uri} must give the runs of {where!r}, it answered: {words}") from None
    if not runs:
        raise UsageError(f"{MLFLOW}{where} must hold complete trials, it holds none: start from another search")
    # In the order in which they were drawn, whatever MLflow's clock says.
    for run in sorted(
        runs, key=lambda run: (run.data.tags.get("s4.search_id", ""), int(run.data.tags.get("s4.trial", 0)))
    ):
        yield run.data.params, run.data.metrics


def _raw_params(params: Mapping[str, str], space: Space) -> dict[str, Value]:
    """Return raw params read back from a config's texts; what cannot be read is missing, which leaves the trial out."""
    if any(params.get(clean_name(path)) != clean_value(value, PARAM_LENGTH) for path, value in space.fixed.items()):
        return {}
    raw: dict[str, Value] = {}
    values: dict[str, Value] = {}
    for parameter in space.parameters:
        if not parameter.applies(values):
            continue
        try:
            value = values[parameter.path] = _read(params[clean_name(parameter.path)], parameter)
            raw[parameter.name] = parameter.encode(value, values)
        except (KeyError, ValueError):  # not recorded, no number, or (a SpaceError) outside the range
            return {}
    return raw


def _read(text: str, parameter: Parameter) -> Value:
    """Return the value that the recorder wrote as this text.

    Raises:
        ValueError: none, or more than one choice, is written so.
    """
    if parameter.kind == "float":
        return float(text)
    if parameter.kind == "int":
        return int(text)
    same = [choice for choice in parameter.choices if clean_value(choice, PARAM_LENGTH) == text]
    same = same or [choice for choice in parameter.choices if isinstance(choice, list) and choice == read_yaml(text)]
    (choice,) = same  # of [0.5, 2] a config makes [0.5, 2.0]
    return choice
