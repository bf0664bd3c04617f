"""The model of scaling: points from samples, its fit and its predictions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Mode = Literal["weak", "strong"]
"""What stays the same when workers are added: the batch of each (weak), or that of all together (strong)."""
PREDICTED = (8, 64, 512)
NAMES: Mapping[Mode, tuple[str, ...]] = {
    "weak": ("compute_s", "latency_s", "s_per_byte"),
    "strong": ("fixed_s", "compute_s", "latency_s", "s_per_byte"),
}
MEDIANS = ("images_per_s", "step_s", "communication_s", "transfer_s", "input_s", "others_cores", "warmup_s")
"""Numbers of a point that are those of its samples."""
Sample = Mapping[str, float]
"""Report of one repeat of one point (`harness.scaling.measure`)."""


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
    """Return a point for each number of workers; each repeat is compared with the first point's beside it."""
    first, base = next(iter(samples.items()))
    points = []
    for workers, repeats in samples.items():
        pairs = zip(repeats, base, strict=True)
        efficiencies = [sample["images_per_s"] / workers / (beside["images_per_s"] / first) for sample, beside in pairs]
        points.append(_point(workers, repeats, efficiencies))
    return points


def _point(workers: int, repeats: Sequence[Sample], efficiencies: Sequence[float]) -> Point:
    def median(name: str) -> float:
        return statistics.median(sample[name] for sample in repeats)

    def medians(prefix: str) -> dict[str, float]:
        return {name[len(prefix) :]: median(name) for name in repeats[0] if name.startswith(prefix)}

    speeds = [sample["images_per_s"] for sample in repeats]
    counted = {"gradients": int(median("bytes/gradients"))}
    counted |= {f"message/{index}": int(size) for index, size in medians("bytes/message/").items()}
    computing = (sample["step_s"] - sample["communication_s"] - sample["input_s"] for sample in repeats)
    return Point(
        **{name: median(name) for name in MEDIANS},
        workers=workers,
        images_per_s_range=(min(speeds), max(speeds)),
        efficiency=statistics.median(efficiencies),
        efficiency_range=(min(efficiencies), max(efficiencies)),
        compute_s=statistics.median(computing),
        bytes_per_step=int(median("bytes_per_step")),
        bytes=counted,
        bytes_expected={name: int(size) for name, size in medians("bytes/expected/").items()},
        collectives=int(median("collectives")),
        links={int(size): seconds for size, seconds in medians("link/").items()},
        peak_memory_bytes=int(max(sample["peak_memory_bytes"] for sample in repeats)),
        repeats=len(repeats),
    )


@dataclass(frozen=True)
class ScalingModel:
    """The fitted parameters."""

    mode: Mode
    base: int
    """n_0, workers of the first point."""
    collectives: int
    """M of a step with several workers."""
    bytes_per_step: int
    """B."""
    parameters: Mapping[str, float]
    """Seconds, and seconds a byte; none is negative."""

    def step_s(self, workers: int) -> float:
        """Return t(n)."""
        row = _step_row(self.mode, self.base, workers, self.collectives, self.bytes_per_step)
        return float(row @ list(self.parameters.values()))

    def link_s(self, workers: int, size: int) -> float:
        """Return the seconds of one message of so many bytes."""
        return float(_link_row(self.mode, workers, size) @ list(self.parameters.values()))

    def efficiency(self, workers: int, first_step_s: float) -> float:
        """Return the speed a worker relative to the first point's, given the step that was measured there."""
        slower = self.step_s(workers) / first_step_s
        return 1 / slower if self.mode == "weak" else self.base / (workers * slower)

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second; none where the fit found bytes to cost nothing."""
        cost = self.parameters["s_per_byte"]
        return 1 / cost if cost > 0 else None


@dataclass(frozen=True)
class Prediction:
    """What the model says of a number of workers. Not measured."""

    workers: int
    step_s: float
    images_per_s: float
    efficiency: float
    efficiency_range: tuple[float, float]
    """Of models fitted to each repeat alone, widened by the model's worst error on the measured points."""


@dataclass(frozen=True)
class Fit:
    """A model, and how far it can be trusted."""

    model: ScalingModel
    errors: Mapping[int, float]
    """By workers: predicted over measured step time, less 1."""
    link_error: float
    """Median size of the relative error on the messages over the links."""
    held_out: tuple[int, float] | None
    """Largest number of workers, and the error on it of a model fitted to all others; none with less than 3 points."""
    predictions: tuple[Prediction, ...]

    @property
    def worst(self) -> float:
        """Largest size of the errors on the points."""
        return max(abs(error) for error in self.errors.values())


class NotIdentifiedError(ValueError):
    """The points cannot tell the parameters apart."""


def fit_all(
    mode: Mode, samples: Mapping[int, Sequence[Sample]], images: Mapping[int, int], predicted: Sequence[int] = PREDICTED
) -> Fit:
    """Fit the model and predict.

    Numbers of workers without `images` (of a step, over all of them) are not predicted.

    Raises:
        NotIdentifiedError: why there can be no fit.
    """
    points = gather_points(samples)
    model = fit(mode, points)
    errors = {point.workers: model.step_s(point.workers) / point.step_s - 1 for point in points}
    worst = 1 + max(map(abs, errors.values()))
    links = [(point.workers, size, seconds) for point in points for size, seconds in point.links.items()]
    link_errors = [abs(model.link_s(workers, size) / seconds - 1) for workers, size, seconds in links]
    of_repeats = []
    for repeat in range(len(samples[points[0].workers])):
        own_points = gather_points({workers: [repeats[repeat]] for workers, repeats in samples.items()})
        of_repeats.append((fit(mode, own_points), own_points[0].step_s))
    predictions = []
    for workers in (count for count in predicted if count in images):
        step_s = model.step_s(workers)
        efficiencies = [own_model.efficiency(workers, first_s) for own_model, first_s in of_repeats]
        efficiency = model.efficiency(workers, points[0].step_s)
        interval = (min(efficiencies) / worst, max(efficiencies) * worst)
        predictions.append(Prediction(workers, step_s, images[workers] / step_s, efficiency, interval))
    return Fit(model, errors, statistics.median(link_errors), _hold_out(mode, points), tuple(predictions))


def fit(mode: Mode, points: Sequence[Point]) -> ScalingModel:
    """Fit the model to points and their links by non-negative least squares of relative errors.

    Raises:
        NotIdentifiedError: why not.
    """
    several = [point for point in points if point.workers > 1]
    if not several:
        raise NotIdentifiedError("no point has more than one worker, so nothing is known of communication")
    collectives, sent = several[0].collectives, several[0].bytes_per_step
    base = points[0].workers
    rows = [(_step_row(mode, base, point.workers, collectives, sent), point.step_s) for point in points]
    for point in several:
        rows += [(_link_row(mode, point.workers, size), seconds) for size, seconds in point.links.items()]
    matrix = np.array([row / seconds for row, seconds in rows])
    names = NAMES[mode]
    # Columns differ by ten orders of magnitude: seconds, and seconds a byte.
    scale = np.linalg.norm(matrix, axis=0)
    if not scale.all() or np.linalg.matrix_rank(matrix / scale, tol=1e-6) < len(names):
        raise NotIdentifiedError(
            f"{len(rows)} measurements cannot tell {', '.join(names)} apart: measure more worker counts"
        )
    solution, _ = nnls(matrix / scale, np.ones(len(rows)))
    return ScalingModel(mode, base, collectives, sent, dict(zip(names, (solution / scale).tolist(), strict=True)))


def _hold_out(mode: Mode, points: Sequence[Point]) -> tuple[int, float] | None:
    *others, last = points
    if len(others) < 2:
        return None
    try:
        model = fit(mode, others)
    except NotIdentifiedError:
        return None
    return last.workers, model.step_s(last.workers) / last.step_s - 1


def _step_row(mode: Mode, base: int, workers: int, collectives: int, size: int) -> NDArray[np.float64]:
    compute = [1.0] if mode == "weak" else [1.0, base / workers]
    return np.array([*compute, *_ring(workers, collectives, size)])


def _link_row(mode: Mode, workers: int, size: int) -> NDArray[np.float64]:
    return np.array([0.0] * (len(NAMES[mode]) - 2) + _ring(workers, 1, size))


def _ring(workers: int, messages: int, size: int) -> list[float]:
    """Return the hops of a ring's messages one after the other, and the bytes that cross each of its links."""
    hops = 2.0 * (workers - 1)
    return [hops * messages, hops / workers * size]
