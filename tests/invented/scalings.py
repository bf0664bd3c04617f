"""Samples of made-up machines, whose truth is known."""

from harness.scaling.measure import LINK_BYTES
from harness.scaling.model import Sample

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
