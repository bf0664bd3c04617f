"""Progress, fed by hand."""

import io

import pytest
from rich.console import Console as RichConsole

from harness.console import Console, LiveProgress, PlainProgress, Tally, show_progress
from harness.trials import Trial, TrialObserver, TrialState


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(total=3, horizon=600, metric="dev/miou", clock=clock)


def start(observer: TrialObserver, number: int) -> Trial:
    trial = Trial(number, {}, {})
    observer.on_start(trial)
    return trial


def report(observer: TrialObserver, trial: Trial, step: int, value: float) -> None:
    trial.metrics = {"step": step, "dev/miou": value}
    trial.best = max(
        trial.best or {"value": value, "step": step}, {"value": value, "step": step}, key=lambda b: b["value"]
    )
    observer.on_report(trial)


def end(observer: TrialObserver, trial: Trial, state: TrialState, error: str | None = None) -> None:
    trial.state, trial.error = state, error
    observer.on_end(trial)


def drawn(progress: LiveProgress) -> str:
    console = RichConsole(file=io.StringIO(), width=100)
    console.print(progress.picture())
    return console.file.getvalue()


def test_the_picture_shows_running_trials_counts_and_the_best_so_far(tally: Tally, clock: Clock) -> None:
    progress = LiveProgress(tally)
    first, second = start(progress, 0), start(progress, 1)
    clock.now = 7.0
    report(progress, first, 60, 0.25)
    report(progress, second, 60, 0.5)
    end(progress, second, TrialState.PRUNED)
    text = drawn(progress)
    assert "trial 0  step 60/600  dev/miou 0.2500  7 s" in text
    assert "trial 1  step" not in text
    assert "1/3 trials: 0 complete, 1 pruned, 0 failed; best dev/miou so far 0.5000 (trial 1, step 60)" in text


def test_the_bar_stands_in_a_line_of_its_own(tally: Tally) -> None:
    progress = LiveProgress(tally)
    report(progress, start(progress, 0), 300, 0.5)
    bar, *rest = drawn(progress).splitlines()
    assert bar.strip() == "━" * 10  # of 60: a half of one of three trials
    assert [row.split()[0] for row in rest] == ["trial", "0/3"]


def test_a_trial_without_a_report_is_shown_without_a_value(tally: Tally) -> None:
    progress = LiveProgress(tally)
    start(progress, 0)
    assert "trial 0  step 0/600" in drawn(progress)


def test_plain_lines_are_one_a_trial(tally: Tally, clock: Clock) -> None:
    lines: list[str] = []
    progress = PlainProgress(tally, lines.append)
    trial = start(progress, 0)
    clock.now = 4.0
    report(progress, trial, 60, 0.25)
    end(progress, trial, TrialState.COMPLETE)
    end(progress, start(progress, 1), TrialState.FAIL, "Traceback ...\n  line\nDivergedError: loss is nan\n")
    assert lines == [
        "[1/3] trial 0 COMPLETE at step 60/600 after 4 s, best dev/miou 0.2500",
        "[2/3] trial 1 FAIL at step 0/600 after 0 s: DivergedError: loss is nan",
    ]


def test_a_heartbeat_comes_at_most_every_ten_seconds(tally: Tally, clock: Clock) -> None:
    lines: list[str] = []
    progress = PlainProgress(tally, lines.append)
    trial = start(progress, 0)
    for second in range(1, 26):
        clock.now = float(second)
        report(progress, trial, second, 0.1)
    assert len(lines) == 2
    assert lines[0].endswith(
        "; best dev/miou so far 0.1000 (trial 0, step 1); about 33 min 8 s left; running: trial 0 at step 10"
    )


def test_a_search_takes_as_long_for_the_rest_as_for_what_is_done(tally: Tally, clock: Clock) -> None:
    progress = LiveProgress(tally)
    first = start(progress, 0)
    assert tally.left_s() is None
    clock.now = 10.0
    report(progress, first, 600, 0.5)
    end(progress, first, TrialState.COMPLETE)
    assert tally.left_s() == pytest.approx(20)  # two more of three, 10 s each
    second = start(progress, 1)
    clock.now = 15.0
    report(progress, second, 300, 0.5)
    clock.now = 20.0
    report(progress, second, 600, 0.5)
    assert tally.left_s() == pytest.approx(20 / 1.5)
    assert "about 13 s left" in " ".join(drawn(progress).split())
    end(progress, second, TrialState.PRUNED)
    end(progress, start(progress, 2), TrialState.PRUNED)
    assert tally.left_s() is None


def test_trials_of_earlier_sessions_took_no_time_of_this_one(clock: Clock) -> None:
    earlier = [Trial(number, {}, {}, state=TrialState.COMPLETE) for number in range(8)]
    tally = Tally(total=10, horizon=600, metric="dev/miou", clock=clock, earlier=earlier)
    progress = LiveProgress(tally)
    trial = start(progress, 8)
    clock.now = 30.0
    end(progress, trial, TrialState.COMPLETE)
    assert tally.share == pytest.approx(0.9)
    assert tally.left_s() == pytest.approx(30)


def test_a_single_training_shows_its_step_speed_loss_and_the_time_left(clock: Clock) -> None:
    tally = Tally(total=1, horizon=600, metric="dev/miou", clock=clock, single=True)
    progress, lines = LiveProgress(tally), list[str]()
    plain = PlainProgress(tally, lines.append)
    trial = start(progress, 0)
    for second, step in ((10.0, 100), (20.0, 300)):
        clock.now = second
        trial.metrics = {"step": step, "dev/miou": 0.25, "train/loss/total": 1.25}
        plain.on_report(trial)
    shown = "step 300/600, 20 steps/s; loss 1.25; best dev/miou so far 0.2500 (step 100); about 30 s left"
    assert " ".join(drawn(progress).split()).endswith(shown)
    assert "trial" not in drawn(progress)
    assert lines[-1] == shown
    end(plain, trial, TrialState.COMPLETE)
    assert lines[-1] == "trial 0 COMPLETE at step 300/600 after 20 s"


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, LiveProgress), (False, PlainProgress)])
def test_the_live_picture_is_for_terminals_only(tally: Tally, is_terminal: bool, kind: type) -> None:
    console = Console(RichConsole(file=io.StringIO(), force_terminal=is_terminal), None)
    with show_progress(console, tally) as progress:
        assert isinstance(progress, kind)
