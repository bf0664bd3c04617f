"""All layers of tests, two at a time, and how long each layer, the slowest tests and the slowest files took.

A test that failed is run once more when nothing runs beside it: many wait for processes, and a machine can be too busy
for them. One that then passes is named at the end; one that fails again fails the whole.

python tests/run_layers.py [OPTION OF PYTEST ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

TESTS = Path(__file__).parent
LAYERS = ("on_ray", "unit", "cluster", "browser", "gloo")
"""Longest first, so that the last to end is a short one; a Ray and the hosts of another are no good neighbours."""
AT_A_TIME = 2
"""Each layer waits for processes of its own for much of its time, but two of them keep two cores busy."""
NICE = {"unit": 15, "browser": 15, "gloo": 15}
"""As Ray's workers have it by themselves: otherwise what runs beside them would have the processors first."""
SLOWEST = 10
MOST_AGAIN = 8
"""More failures are no accident: they are not run again. What tests of a file have in common fails once."""
TAIL = 12
"""Lines of a failure that are shown again at the end, where a log that was cut still has them."""


class Layer(NamedTuple):
    """What a layer left."""

    name: str
    code: int
    seconds: float
    summary: str
    """Pytest's own last line."""
    tests: list[ElementTree.Element]
    """Its cases in pytest's JUnit report."""


def run(name: str, report: Path, options: Sequence[str]) -> Layer:
    """Run a layer in a process of its own, and pass on what it prints."""
    words = [sys.executable, "-m", "pytest", str(TESTS / name), f"--junitxml={report}", *options]
    begun, summary = time.monotonic(), ""
    process = subprocess.Popen(
        words, cwd=TESTS.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    os.setpriority(os.PRIO_PROCESS, process.pid, NICE.get(name, 0))
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{name:8} {line}", end="", flush=True)
        summary = line.strip() or summary
    code = process.wait()
    tests = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []  # noqa: S314  # our own file
    return Layer(name, code, time.monotonic() - begun, summary, tests)


def label(test: ElementTree.Element) -> str:
    """Return the name of a test with its file."""
    return f"{test.get('classname')}::{test.get('name')}"


def node(test: ElementTree.Element) -> str:
    """Return the name of a test by which pytest runs it."""
    return f"{str(test.get('classname')).replace('.', '/')}.py::{test.get('name')}"


def took(test: ElementTree.Element) -> float:
    """Return the seconds of a test; one that sets up for a whole file has that, too."""
    return float(test.get("time", 0))


def failures(test: ElementTree.Element) -> list[str]:
    """Return the last lines of what a test failed with; none where it passed."""
    texts = [fault.text or fault.get("message", "") for kind in ("failure", "error") for fault in test.iter(kind)]
    return ["\n".join(text.splitlines()[-TAIL:]) for text in texts]


def main(options: Sequence[str]) -> int:
    """Return 0 where all layers passed."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_A_TIME) as pool:
        reports = [Path(folder) / f"{name}.xml" for name in LAYERS]
        layers = list(pool.map(run, LAYERS, reports, [options] * len(LAYERS)))
    print("\nslowest tests")
    tests = [test for layer in layers for test in layer.tests]
    for test in sorted(tests, key=took, reverse=True)[:SLOWEST]:
        print(f"{took(test):8.1f} s  {label(test)}")
    print("slowest files")
    files = Counter[str]()
    for test in tests:
        files[str(test.get("classname"))] += took(test)
    for name, seconds in files.most_common(SLOWEST):
        print(f"{seconds:8.1f} s  {name}")
    print("layers")
    for layer in layers:
        print(f"{layer.seconds:8.1f} s  {layer.name}: {len(layer.tests)} tests")
    for layer in layers:
        print(f"{layer.name:8} {layer.summary}")
    failed = [test for test in tests if failures(test)]
    for test in failed:
        print(f"\nFAILED {label(test)}\n{failures(test)[0]}")
    broken = [layer.name for layer in layers if layer.code not in (0, 1)]  # not a test, but pytest itself
    if broken or not failed or len({failures(test)[0] for test in failed}) > MOST_AGAIN:
        return int(any(layer.code for layer in layers))
    code = subprocess.run([sys.executable, "-m", "pytest", *map(node, failed), *options], cwd=TESTS.parent).returncode
    print(f"\n{'passed' if code == 0 else 'failed again'} when run alone: {', '.join(map(label, failed))}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
