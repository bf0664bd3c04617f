"""Whether the batches of a config can be made; light to import."""

from __future__ import annotations

from trainers.config import TrainConfig
from trainers.errors import ConfigError


def check_batches(config: TrainConfig, world_size: int) -> None:
    """Refuse batches that cannot be made: not shared evenly by the ranks and a rank's parts, or of several sizes.

    Raises:
        ConfigError: a batch is not a multiple of the number of ranks times `schedule.accumulate`, or images of
            different sizes are not cropped to one.
    """
    if config.data.image_shape is None and config.augment.weak.crop is None:
        raise ConfigError(
            f"augment.weak.crop must be a height and width for {config.data.name}, whose images differ in size, got "
            "none: set it, for example to [512, 512]"
        )
    shares = world_size * config.schedule.accumulate
    for name in ("labelled_batch", "unlabelled_batch"):
        batch = getattr(config.schedule, name)
        if batch % shares:
            raise ConfigError(
                f"schedule.{name} is shared by all workers and their parts (schedule.accumulate) and must be a "
                f"multiple of both, got {batch} for {world_size} workers x {config.schedule.accumulate}: "
                f"set it to {-(-batch // shares) * shares} or change the workers"
            )
