"""What many trials cost the driver, the files of a run, and the commands that read them.

    python tests/benchmarks/bench_scale.py
    python tests/benchmarks/bench_scale.py --trials 100,1000 --sync --json

A search is played without Ray (`scale_simulation.py`), in a process for each size, with MLflow out of reach; then each
command reads its folder in a process of its own. Nothing is timed that Ray does. Times but `seconds` are of the
processor, which other programs lengthen less than those on the wall, and leave out how long a disk takes.

    driver_mb       resident memory at its highest; `grown_mb` of it since before the first trial
    trial_ms        the driver's time a trial, suggestions aside, of the first and of the last tenth of the trials
    suggest_ms      a suggestion with its writing in the journal, of the first and of the last tenth
    close_s         from the last trial's end to the end of the command, without its report
    files_mb        by name; of folders all they hold
    sync            `s4 sync` into a SQLite file, with --sync; without it `doctor` finds records that MLflow lacks
    resume          to the first suggestion of a search that goes on
    show, report, doctor
    samplers_ms     a suggestion of each sampler in memory, from all those trials; none where it took longer than
                    the limit
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scale_simulation import GANGS, Course, Ended, without_ray

Figures = dict[str, Any]
NAME = "many"
MORE = 8
"""Trials that a search goes on with."""
SAMPLERS = ("random", "tpe", "cmaes", "gp")
DRAWS = 5
"""Suggestions of each sampler."""


def played(storage: Path, trials: int, options: Mapping[str, Any]) -> Figures:
    """Search, in a folder that is new or goes on."""
    from harness import api

    resume = (storage / NAME).exists()
    course, before = Course(), resident_mb()
    given = {"trials": trials} if resume else {"space": "css_quick", "trials": trials, **options}
    with without_ray(course, mlflow=False):
        api.search(
            None if resume else "digits_css", name=NAME, resume=resume, storage=storage, tracking_uri=uri_of(storage),
            report=False, quiet=True, **given,
        )  # fmt: skip
    over = time.process_time()
    tenth = max(1, len(course.ends) // 10)
    parts = {"first": course.ends[: tenth + 1], "last": course.ends[-tenth - 1 - GANGS : -GANGS]}
    both = {name: _a_trial(ends) for name, ends in parts.items() if len(ends) > 1}  # the gangs are full meanwhile
    return {
        "driver_mb": peak_mb(), "grown_mb": peak_mb() - before, "first_suggestion_s": course.first_s,
        "trial_ms": {name: trial for name, (trial, _) in both.items()},
        "suggest_ms": {name: suggest for name, (_, suggest) in both.items()},
        "search_s": course.ends[-1].at_s, "close_s": over - course.began - course.ends[-1].at_s,
    }  # fmt: skip


def _a_trial(ends: Sequence[Ended]) -> tuple[float, float]:
    """Return the milliseconds of a trial, suggestions aside, and of its suggestion."""
    spent, suggested = ends[-1].at_s - ends[0].at_s, ends[-1].suggested_s - ends[0].suggested_s
    drawn = ends[-1].suggested - ends[0].suggested
    return 1e3 * (spent - suggested) / (len(ends) - 1), 1e3 * suggested / max(1, drawn)


def sizes(storage: Path) -> Figures:
    """Return the MB of what lies in a run's folder."""
    return {
        path.name: sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()) / 1e6
        for path in sorted((storage / NAME).iterdir())
    }


def sync(storage: Path) -> Figures:
    """Send all records."""
    from harness.session import send_records

    delivery = send_records(storage / NAME, uri_of(storage))
    assert not delivery.pending or delivery.note, delivery
    return {"operations": delivery.applied, "left": delivery.pending}


def show(storage: Path) -> Figures:
    """`s4 show`."""
    from harness.reporting.shown import lines, read_shown

    return {"lines": len([*lines(read_shown(storage / NAME))])}


def report(storage: Path) -> Figures:
    """`s4 report`, its table in a pipe."""
    from harness.console import make_console
    from harness.session import report_again

    page = report_again(storage, NAME, make_console(quiet=True))
    files = [file for file in page.parent.rglob("*") if file.is_file()]
    largest = max((file for file in files if file != page), key=lambda file: file.stat().st_size)
    return {
        "html_mb": page.stat().st_size / 1e6, "folder_mb": sum(file.stat().st_size for file in files) / 1e6,
        "largest": [str(largest.relative_to(page.parent)), largest.stat().st_size / 1e6],
    }  # fmt: skip


def doctor(storage: Path) -> Figures:
    """`s4 doctor`."""
    from harness.doctor import check_up

    return {"findings": len(check_up(storage / NAME, uri_of(storage), fix=False).findings)}


def suggestion(storage: Path, sampler: str) -> Figures:
    """Draw from the study as a search would, in memory."""
    import optuna

    from harness.run_folder import read_run
    from harness.tuning.config import recorded_space
    from harness.tuning.objectives import Objective
    from harness.tuning.samplers import make_sampler
    from harness.tuning.study import open_study

    space, kept = recorded_space(read_run(storage / NAME)), open_study(storage / NAME, NAME)
    assert kept is not None
    made = make_sampler(sampler, 0, space=space, objectives=(Objective("dev/miou", "max"),))
    study = optuna.create_study(direction="maximize", sampler=made)
    study.add_trials(kept.get_trials(deepcopy=False))
    taken = []
    for _ in range(DRAWS):
        before = time.process_time()
        space.suggest(study.ask())
        taken.append(1e3 * (time.process_time() - before))
    return {"ms": statistics.median(taken)}


STEPS: Mapping[str, Callable[..., Figures]] = {
    "search": played, "sizes": sizes, "sync": sync, "resume": played, "show": show, "report": report, "doctor": doctor,
    "suggestion": suggestion,
}  # fmt: skip


def uri_of(storage: Path) -> str:
    """Return the store of records beside the runs."""
    return f"sqlite:///{storage / 'mlflow.db'}"


def resident_mb() -> float:
    """Return the resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """Return it at its highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def take(step: str, *arguments: Any) -> Figures:
    """Take a step in this process, and say how long it took, on the wall and of the processor, and its memory."""
    before, spent = time.perf_counter(), time.process_time()
    found = STEPS[step](*arguments)
    seconds, cpu_s = time.perf_counter() - before, time.process_time() - spent
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb(), **found}


def _answer(answer: Any, step: str, arguments: tuple[Any, ...]) -> None:
    answer.send(take(step, *arguments))


def apart(step: str, *arguments: Any, limit_s: float | None = None) -> Figures | None:
    """Take a step in a new process; none where it took longer than the limit, and was ended.

    Raises:
        EOFError: the step failed; its traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")
    answer, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, step, arguments))
    process.start()
    theirs.close()  # so that the end of the process is seen
    try:
        found: Figures | None = answer.recv() if answer.poll(limit_s) else None
        return found
    finally:
        process.kill()
        process.join()


def measure(trials: int, options: Mapping[str, Any], syncs: bool, limit_s: float, step: Callable[..., Any]) -> Figures:
    """Measure one size; `step` is `apart` or `take`."""
    with tempfile.TemporaryDirectory() as place:
        storage = Path(place)
        found: Figures = {"trials": trials, "search": step("search", storage, trials, options)}
        found["files_mb"] = sizes(storage)
        for name in ("sync", "show", "report", "doctor")[0 if syncs else 1 :]:
            found[name] = step(name, storage)
            print(trials, name, found[name], file=sys.stderr, flush=True)
        found["samplers_ms"] = {}
        for name in SAMPLERS:
            drawn = step("suggestion", storage, name, **({"limit_s": limit_s} if step is apart else {}))
            found["samplers_ms"][name] = None if drawn is None else drawn["ms"]
        found["resume"] = step("resume", storage, trials + MORE, {})
    return found


def main(words: Sequence[str] | None = None, step: Callable[..., Any] = apart) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="100,1000,10000", help="sizes, with commas")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--sync", action="store_true", help="send the records, too, which takes long")
    parser.add_argument("--limit-s", type=float, default=60.0, help="for the suggestions of one sampler")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    options = {"sampler": asked.sampler, "scheduler": asked.scheduler}
    found = [measure(int(size), options, asked.sync, asked.limit_s, step) for size in asked.trials.split(",")]
    print(json.dumps(found) if asked.json else json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
