"""Samples of made-up machines, whose truth is known."""

from pathlib import Path

from harness.scaling.measure import LINK_BYTES
from harness.scaling.model import Mode, Sample, fit_all, gather_points
from harness.scaling.report import CURVE, Scaling, draw_curve, write
from harness.scaling.session import ScaleRequest
from trainers.presets import load_preset

MESSAGES = {"bytes/message/0": 2868.0, "bytes/message/1": 48.0, "bytes/message/2": 3096.0}
EXPECTED = {"gradients": 800_000.0, "prototypes": 2860.0, "statistics": 3096.0, "sums": 56.0}
SENT = 806_012
COLLECTIVES = 4


def sample(workers: int, step_s: float, images: int, latency: float = 0.0, per_byte: float = 0.0) -> Sample:
    """What one repeat reports on a machine with rings of such hops."""
    hops = 2 * (workers - 1)
    alone = workers == 1
    found = {
        "step_s": step_s,
        "images_per_s": images / step_s,
        "communication_s": 0.0 if alone else 0.004,
        "transfer_s": 0.0 if alone else 0.003,
        "input_s": 0.001,
        "others_cores": 0.1,
        "warmup_s": 0.5,
        "peak_memory_bytes": 1e9,
        "collectives": 0.0 if alone else float(COLLECTIVES),
        "bytes/gradients": 0.0 if alone else EXPECTED["gradients"],
        "bytes_per_step": 0.0 if alone else float(SENT),
    }
    found |= {f"bytes/expected/{name}": 0.0 if alone else size for name, size in EXPECTED.items()}
    if alone:
        return found
    links = {f"link/{size}": hops * latency + hops / workers * size * per_byte for size in LINK_BYTES}
    return {**found, **MESSAGES, **links}


def measured(mode: Mode = "weak", counts: tuple[int, ...] = (1, 2), name: str = "made-up") -> Scaling:
    """Return a measurement of a machine that is a little slower with every worker."""
    request = ScaleRequest("digits_css", load_preset("digits_css"), mode, counts, 20, 5, 10, 2)
    samples = {
        n: [sample(n, 0.1 + 0.01 * (n - 1) + extra, request.images_of(n), 1e-5, 1e-10) for extra in (0.0, 0.004)]
        for n in counts
    }
    fit = fit_all(mode, samples, {n: request.images_of(n) for n in (8, 64, 512)})
    return Scaling(name, request.as_plain(), "CPU", 1, tuple(gather_points(samples)), fit, "", "uri")


def made_scaling(folder: Path) -> Scaling:
    """Write a measurement and return it."""
    folder.mkdir(parents=True)
    scaling = measured(name=folder.name)
    draw_curve(scaling, folder / CURVE)
    write(folder, scaling)
    return scaling
