"""CSS as an experiment: this project's trainer, from a preset, settings and a trial's overrides."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.config_file import named_config
from harness.run_folder import CONFIG, CONFUSION, LATEST, OVERLAYS, PICTURE, SPLITS, evaluation_file, write_whole
from harness.trials import OVERHEADS, Experiment, Value
from trainers.config import TrainConfig
from trainers.errors import DataError
from trainers.methods import METHOD, configured, with_method
from trainers.metrics import late_metric_names, metric_names
from trainers.presets import load_preset

if TYPE_CHECKING:
    from trainers.run import Run


class CssExperiment(Experiment):
    """The trainer of this project. Light to import: torch is loaded where training happens."""

    trainer = "css"

    def __init__(self, config: TrainConfig, preset: str = "", settings: Mapping[str, Value] | None = None) -> None:
        """Make an experiment of a config.

        Args:
            config: the preset with the settings.
            preset: its name, for records.
            settings: what was set by hand, by dotted path, for records.
        """
        self.base = config
        self.name = preset or config.data.name
        self.settings = dict(settings or {})
        self.horizon = config.schedule.steps
        self.report_every = config.schedule.evaluate_every
        self.metric = "dev/miou"
        """On the dev split: the official validation images stay unseen by a search."""
        self.config = config.model_dump(mode="json")
        self.data = config.data.name

    @classmethod
    def of(cls, preset: str, settings: Mapping[str, Value] | None = None, method: str | None = None) -> CssExperiment:
        """Return the experiment of a preset or a config file, with settings by dotted path, as one of the methods.

        What a file sets is a setting, so a run does not need it any more.

        Raises:
            ConfigError: there is no such preset, file, path or method, or a value is out of range.
        """
        preset, own = named_config(preset)
        given = {**own, **({} if method is None else {METHOD: method}), **(settings or {})}
        return cls(configured(load_preset(preset), given), preset, with_method(given))

    @property
    def data_digest(self) -> str:  # type: ignore[override]  # reads the data, so only where it is asked for
        """Hash of the splits that the base config trains and is judged on.

        Raises:
            DataError: the data cannot be read.
        """
        return self.digest({})

    def digest(self, overrides: Mapping[str, Value]) -> str:
        """Return the hash of the splits that a run with these overrides is trained and judged on.

        Raises:
            ConfigError: an override is unknown or out of range.
            DataError: the data cannot be read.
        """
        from trainers.data.splits import open_splits

        return open_splits(self.configure(overrides).data).digest

    def configure(self, overrides: Mapping[str, Value]) -> TrainConfig:
        """Return the whole config of a trial; the override `method` stands for the settings of that method.

        Raises:
            ConfigError: an override is unknown or out of range.
        """
        return configured(self.base, overrides)

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        """Return the resolved config and its hash.

        Raises:
            ConfigError: an override is unknown or out of range.
        """
        config = self.configure(overrides)
        return config.model_dump(mode="json"), config.hash

    def metric_names(self, overrides: Sequence[Mapping[str, Value]], late: bool = False) -> Collection[str]:
        """Return the names of all metrics that reports, and with `late` the evaluation, can hold."""
        if type(self).train is not CssExperiment.train:
            return ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said where the config is checked
            configs = [self.configure(changes) for changes in overrides]
        return [*metric_names(configs), *OVERHEADS, *(late_metric_names(configs) if late else ())]

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        """Train one configuration; return the hash of the config that was used."""
        from trainers.loop import train

        config = self.configure(overrides)
        train(config, run)
        return config.hash

    def check(self, workers: int) -> None:
        """Make sure that the workers can share the batches and that the data can be read.

        Raises:
            ConfigError, DataError: one line that says what must hold.
        """
        from trainers.data.batches import check_batches
        from trainers.data.needs import verify_needs

        check_batches(self.base, workers)
        if self.base.compute.graph:
            from trainers.whole_step import is_graph

            is_graph(self.base, workers)  # says why not
        verify_needs(self.base)

    def check_data(self, overrides: Iterable[Mapping[str, Value]]) -> None:
        """Make sure that the losses of each configuration find what they need, where the base config does not need it.

        Raises:
            DataError: there are no unlabelled images, or an image has no weak map, or a wrong one.
        """
        from trainers.data.needs import verify_more_needs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said where the config is checked
            verify_more_needs(self.base, map(self.configure, overrides))

    def check_evaluation(self) -> None:
        """Make sure that there are validation images, and test images where they are asked for.

        Raises:
            DataError: their folder is missing or empty, or one has no mask.
        """
        from trainers.data.splits import open_scored

        for split in self.base.data.late_splits:
            open_scored(self.base.data, split)

    def describe(self) -> Sequence[str]:
        """Say what of a file of encoder weights fits, where the config names one, or a package.

        Raises:
            ConfigError: timm has no such encoder.
            DataError: the file cannot be read, or fits another network.
        """
        if self.base.model.arch == "tiny":
            return ()
        from trainers.models.weights import inspect_weights

        report = inspect_weights(self.base.model)
        return () if report is None else (str(report),)

    def warm_up(self, run: Run) -> None:
        """Import the trainer, read the data and take one step that is thrown away."""
        from trainers.loop import warm_up

        warm_up(self.base, run)

    def record_inputs(self, logger: Any, folder: Path, val: bool = False) -> None:
        """Keep the lists of the splits, and note training and dev images, and validation images where they are read.

        Raises:
            DataError: folders, lists or numbers of images do not fit.
        """
        from trainers.data.splits import open_scored, open_splits, write_splits

        data, splits = self.base.data, open_splits(self.base.data)
        write_splits(splits, folder / SPLITS)
        source, schema = str(getattr(data, "root", "embedded in scikit-learn")), {"classes": list(data.classes)}
        images = {
            "training": ("train", {"labelled": len(splits.labelled), "unlabelled": len(splits.unlabelled)}),
            "dev": ("dev", {"images": len(splits.dev)}),
        }
        for split in data.late_splits if val else ():
            images[split] = (split, {"images": len(open_scored(data, split))})
        for context, (split, profile) in images.items():
            name = f"{data.name} {split}"
            logger.dataset(name, splits.digest, source, context=context, profile=profile, schema=schema)

    def evaluate(self, overrides: Mapping[str, Value], folder: Path) -> dict[str, float]:
        """Evaluate the teacher on dev, validation and test images; return mIoU, accuracy and IoUs of the last two.

        Image by image, so that images can be resampled: `dev.npz`, `val.npz` and, where the config has test images,
        `test.npz` in the folder. What lies there already is not computed again.

        Raises:
            DataError: the checkpoint is not of the horizon, or it or the images cannot be read.
        """
        from harness.models.evaluation import draw_confusion, metrics_of
        from trainers.data.splits import open_scored
        from trainers.figure import draw_checkpoint
        from trainers.image_evaluation import evaluate_images, load_image_evaluation, save_image_evaluation
        from trainers.models.served import load_segmenter

        config = self.configure(overrides)
        if not (folder / CONFIG).exists():
            write_whole(folder / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        late = config.data.late_splits
        missing = [split for split in ("dev", *late) if not evaluation_file(folder, split).exists()]
        if missing:
            segmenter = load_segmenter(config, folder / LATEST)
            if segmenter.step != self.horizon:  # the disk was full when training ended
                raise DataError(
                    f"a checkpoint of {self.horizon} steps must lie in {folder}, it has {segmenter.step}: remove the "
                    "ablation and start again"
                )
            for split in missing:
                images = evaluate_images(segmenter, open_scored(config.data, split))
                save_image_evaluation(evaluation_file(folder, split), images)
        if not (folder / OVERLAYS).exists():
            draw_checkpoint(config, folder / LATEST, folder / OVERLAYS)
        evaluations = {split: load_image_evaluation(evaluation_file(folder, split)) for split in late}
        if not (folder / CONFUSION).exists():
            draw_confusion(evaluations["val"], folder / CONFUSION, "val")
        scores = [metrics_of(evaluation, split) for split, evaluation in evaluations.items()]
        return {name: value for metrics in scores for name, value in metrics.items()}

    def draw(self, folder: Path) -> Path:
        """Draw image, truth, prediction and pseudo-labels of dev images."""
        from trainers.figure import draw_checkpoint

        draw_checkpoint(self.base, folder / LATEST, folder / PICTURE)
        return folder / PICTURE
