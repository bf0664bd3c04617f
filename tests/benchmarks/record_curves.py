"""Records learning curves of real trainings, for `bench_samplers.py`.

    python tests/benchmarks/record_curves.py [--rows 500] [--processes 2]

Each row of `curves.csv` is a training of `digits_css` over a short horizon: params that were drawn at random from the
space `css_quick` (row k is draw k, always), and the dev mIoU after each number of steps in the header. Rows that the
file has are not trained again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import optuna

from search_spaces import Space, load_space

FILE = Path(__file__).with_name("curves.csv")
SPACE = "css_quick"
HORIZON = 180
EVERY = 15
SHORT: Mapping[str, Any] = {"schedule.steps": HORIZON, "schedule.evaluate_every": EVERY, "data.dev": 96}
STEPS = tuple(range(EVERY, HORIZON + 1, EVERY))


def draw(space: Space, count: int) -> list[dict[str, Any]]:
    """Return raw params of so many draws at random; more draws begin with the same ones."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def record(overrides: Mapping[str, Any]) -> list[float]:
    """Train once on one thread; return the scores."""
    import torch

    from trainers.local_run import LocalRun
    from trainers.loop import train
    from trainers.overrides import apply_overrides
    from trainers.presets import load_preset

    torch.set_num_threads(1)
    scores: list[float] = []
    config = apply_overrides(load_preset("digits_css"), {**SHORT, **overrides})
    train(config, LocalRun(listener=lambda metrics: scores.append(metrics["dev/miou"])))
    return scores


class Rows:
    """A file of curves that grows row by row."""

    def __init__(self, file: TextIO, names: Sequence[str], done: int) -> None:
        self._file, self._names, self.done = file, names, done
        """`done`: how many it has."""

    def add(self, params: Mapping[str, Any], scores: Sequence[float]) -> None:
        """Append one, whole."""
        values = (params[name] for name in self._names)
        words = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]
        self._file.write(",".join((*words, *(f"{score:.4f}" for score in scores))) + "\n")
        self._file.flush()
        self.done += 1


@contextmanager
def opened(path: Path, space: Space) -> Iterator[Rows]:
    """Open a file of curves of a space; a new one gets its header."""
    names = [parameter.name for parameter in space.parameters]
    if not path.exists():
        path.write_text(",".join((*names, *map(str, STEPS))) + "\n", encoding="utf-8")
    done = path.read_text(encoding="utf-8").count("\n") - 1
    with path.open("a", encoding="utf-8") as file:
        yield Rows(file, names, done)


def main(arguments: list[str] | None = None) -> int:
    """Add what is missing, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    space = load_space(SPACE)
    with opened(FILE, space) as rows, ProcessPoolExecutor(options.processes) as pool:
        drawn = draw(space, options.rows)[rows.done :]
        for params, scores in zip(drawn, pool.map(record, map(space.overrides, drawn)), strict=True):
            rows.add(params, scores)
            print(f"{rows.done}/{options.rows}: {scores[-1]:.4f}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
