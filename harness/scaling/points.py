"""The measured points of a scaling curve: what the repeats of each worker count amount to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Sample = Mapping[str, float]
"""What one repeat of one point reported (`harness.scaling.measure`)."""
PARTS = ("gradients", "prototypes", "statistics", "sums")
"""Of the bytes of a step."""


class Spread(NamedTuple):
    """A median over repeats, and the ends of what they found."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """What was measured with one number of workers. Numbers are medians over repeats."""

    workers: int
    images_per_s: float
    """Labelled and unlabelled images, over all workers."""
    images_per_s_range: tuple[float, float]
    efficiency: float
    """images_per_s / workers, relative to that of the first point; paired within each repeat."""
    efficiency_range: tuple[float, float]
    step_s: float
    compute_s: float
    """The rest of the step: computation of a rank, and what nothing else names."""
    communication_s: float
    """Of a step, not hidden by the backward: inside of collectives, waiting for other ranks included. Mean of ranks."""
    transfer_s: float
    """Of that, what the rank spent that came last to each collective, and waited for nobody."""
    input_s: float
    """Of a step, inside of the loader. Mean of ranks."""
    bytes_per_step: int
    """Counted: what a rank contributed to the collectives of a step."""
    bytes: Mapping[str, int]
    """The same by message: `gradients` (all buckets), `message/0`, `message/1`, ..."""
    bytes_expected: Mapping[str, int]
    """Computed: what they should be, by content."""
    collectives: int
    """Of a step."""
    links: Mapping[int, float]
    """Seconds of an all-reduce, by the bytes of the message."""
    peak_memory_bytes: int
    """Of the worker that needed most."""
    others_cores: float
    """CPUs that other processes kept busy meanwhile; the most on any machine. Far from 0, the point says little."""
    warmup_s: float
    """Network, first steps and whatever they set up; not in any other number."""
    repeats: int

    @property
    def bytes_unexplained(self) -> int:
        """Counted less computed; 0 where every byte has a name."""
        return self.bytes_per_step - sum(self.bytes_expected.values())


def gather_points(samples: Mapping[int, Sequence[Sample]]) -> list[Point]:
    """Return a point for each number of workers.

    Args:
        samples: by workers, ascending; repeat r of one is compared with repeat r of the first, which ran next to it.
    """
    first, base = next(iter(samples.items()))
    points = []
    for workers, repeats in samples.items():
        efficiencies = [
            one["images_per_s"] / workers / (other["images_per_s"] / first)
            for one, other in zip(repeats, base, strict=True)
        ]
        points.append(_point(workers, repeats, _spread(efficiencies)))
    return points


def _point(workers: int, repeats: Sequence[Sample], efficiency: Spread) -> Point:
    def median(name: str) -> float:
        return statistics.median(one[name] for one in repeats)

    def those(prefix: str) -> dict[str, float]:
        return {name[len(prefix) :]: median(name) for name in repeats[0] if name.startswith(prefix)}

    speed = _spread([one["images_per_s"] for one in repeats])
    counted = {"gradients": int(median("bytes/gradients"))}
    counted |= {f"message/{index}": int(size) for index, size in those("bytes/message/").items()}
    return Point(
        workers=workers,
        images_per_s=speed.median,
        images_per_s_range=speed[1:],
        efficiency=efficiency.median,
        efficiency_range=efficiency[1:],
        step_s=median("step_s"),
        compute_s=statistics.median(one["step_s"] - one["communication_s"] - one["input_s"] for one in repeats),
        communication_s=median("communication_s"),
        transfer_s=median("transfer_s"),
        input_s=median("input_s"),
        bytes_per_step=int(median("bytes_per_step")),
        bytes=counted,
        bytes_expected={name: int(size) for name, size in those("bytes/expected/").items()},
        collectives=int(median("collectives")),
        links={int(size): seconds for size, seconds in those("link/").items()},
        peak_memory_bytes=int(max(one["peak_memory_bytes"] for one in repeats)),
        others_cores=median("others_cores"),
        warmup_s=median("warmup_s"),
        repeats=len(repeats),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
