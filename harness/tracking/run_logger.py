"""Records besides trials: files, tags, late metrics, data sets, summaries of several runs, models, views."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from harness.tracking.limits import (
    INPUT_TAG_LENGTH,
    NAME_LENGTH,
    TAG_LENGTH,
    clean_name,
    clean_path,
    clean_step,
    clean_tags,
    clean_value,
    finite,
    flat_params,
)
from harness.tracking.outbox import Operation, stamped
from harness.tracking.stores import NOTE
from harness.tracking.views import Chart, What, view_key, view_value
from harness.trials import Value

DATASET_NAME, DATASET_DIGEST, DATASET_SOURCE, DATASET_SCHEMA = 500, 36, 65_535, 1_048_575
"""Characters that MLflow takes of a data set's fields."""
CHAMPION = "champion"
"""Alias of the registered version that is the newest winner."""

HERE, FILES = "{here}", "{files}"
"""In a note: the addresses of the run's own page and of its artifacts, not known before MLflow has the run."""
NOTE_LENGTH = TAG_LENGTH - 500
"""Characters of a note, beside the addresses in it."""

Context = Literal["training", "dev", "val", "test"]


class RunLogger(ABC):
    """Methods that leave one operation each. None waits, and none changes whether a run is RUNNING.

    `trial` is the number of the trial whose run is meant; none: the search itself. A training is one run, and meant
    by both.
    """

    _name: str
    _tags: dict[str, str]

    @abstractmethod
    def _send(self, operation: Operation) -> None: ...

    def _log(self, op: str, trial: int | None, **fields: object) -> None:
        self._send(stamped(op, **fields, **({} if trial is None else {"trial": trial})))

    def artifact(self, file: str, text: str, trial: int | None = None) -> None:
        """Keep a text as the artifact `file`, which may name folders: `tables/all.md`."""
        self._log("artifact", trial, file=clean_path(file) or "_", text=text)

    def file(self, path: Path, trial: int | None = None, folder: str = "") -> None:
        """Keep a file that is already written, such as a picture, as an artifact in a folder below the run."""
        self._log("file", trial, path=str(path.absolute()), folder=clean_path(folder))

    def tag(self, tags: Mapping[str, object], trial: int | None = None) -> None:
        """Set tags; one that is there already gets the new value."""
        self._log("tag", trial, tags=clean_tags(tags))

    def note(self, text: str, trial: int | None = None) -> None:
        """Set the description that MLflow's pages show of a run: Markdown, with `HERE` and `FILES` for addresses."""
        self.tag({NOTE: clean_value(text, NOTE_LENGTH)}, trial)

    def metrics(self, metrics: Mapping[str, float], step: float, trial: int | None = None) -> None:
        """Log metrics that are known late, such as `val/...` after the end; a run that has ended stays ended."""
        self._log("report", trial, step=clean_step(step), metrics=finite(metrics)[0])

    def aggregate(
        self,
        key: str,
        name: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, Value] | None = None,
        step: float = 0,
    ) -> None:
        """Summarise several trials, such as the seeds of a variant, in a run beside them.

        Called again with the same key (tag `s4.aggregate`), metrics and tags are updated; params stay as they were.
        """
        tags = {**self._tags, **clean_tags(tags or {}), "s4.aggregate": clean_name(key), "s4.kind": "aggregate"}
        about = {"name": clean_value(name, NAME_LENGTH), "tags": tags, "params": flat_params(params or {})}
        self._log("aggregate", None, step=clean_step(step), metrics=finite(metrics)[0], **about)

    def dataset(
        self,
        name: str,
        digest: str,
        source: str,
        *,
        context: Context,
        profile: Mapping[str, object] | None = None,
        schema: Mapping[str, object] | None = None,
    ) -> None:
        """Note a data set that the search read, before its first trial starts: trials on the same data get it, too.

        MLflow keeps one context for each name and digest.

        Args:
            source: where it comes from: a folder or an address.
            profile: numbers about it, JSON-able.
            schema: what a row is, JSON-able.
        """
        self._log(
            "dataset",
            None,
            name=clean_value(name, DATASET_NAME) or "_",
            digest=clean_value(digest, DATASET_DIGEST) or "_",
            source=_json({"uri": source}, DATASET_SOURCE),
            context=clean_value(context, INPUT_TAG_LENGTH),
            profile=_json(profile or {}, DATASET_SCHEMA),
            schema=_json(schema or {}, DATASET_SCHEMA),
        )

    def view(
        self,
        what: What,
        condition: str,
        order_by: str,
        charts: Sequence[Chart],
        columns: Sequence[str] = (),
        group_by: str | None = None,
    ) -> None:
        """Prepare a view of MLflow's page of runs (`harness.tracking.views`); one that is there is replaced.

        Args:
            condition: of the runs, besides that they are of this search, in MLflow's words.
            order_by, columns, group_by: as in `view_value`.
        """
        mine = f"tags.`s4.search` = '{self._name}' and {condition}"
        now = stamped("view")
        value = view_value(f"{self._name}: {what}", mine, order_by, charts, now["time"], columns, group_by)
        self._send({**now, "key": view_key(self._name, what), "value": value})

    def model(
        self,
        name: str,
        uri: str,
        trial: int | None = None,
        *,
        tags: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        step: float = 0,
    ) -> None:
        """Make a checkpoint that lies at `uri` a model of the run (`harness.tracking.models.log_external`)."""
        about = {"name": name, "uri": uri, "step": clean_step(step)}
        self._log("model", trial, about={**about, "tags": clean_tags(tags or {}), "metrics": finite(metrics or {})[0]})

    def register(
        self,
        name: str,
        checkpoint: Path,
        config_file: Path,
        trial: int | None = None,
        *,
        tags: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Register the teacher in a checkpoint as the champion (`harness.tracking.models.register_winner`).

        Both files must still be there when MLflow is reached.
        """
        files = {"checkpoint": str(checkpoint.absolute()), "config_file": str(config_file.absolute())}
        about = {"tags": clean_tags(tags or {}), "metrics": finite(metrics or {})[0]}
        self._log("register", trial, about={"name": name, "alias": CHAMPION, **files, **about})


def _json(value: Mapping[str, object], limit: int) -> str:
    """Return the value as JSON; of one that is too long only that it was, for JSON cannot be cut."""
    text = json.dumps(value)
    return text if len(text) <= limit else json.dumps({"left_out": f"{len(text)} characters, {limit} are allowed"})
