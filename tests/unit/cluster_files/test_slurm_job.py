"""The batch scripts hand signals on to the driver, and go back into the queue at the time limit alone.

Slurm, Ray and s4 are small programs that do what the scripts need of them: `scontrol requeue` ends the job, `srun` runs
a command once, `ray symmetric-run` runs what stands after `--`.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cluster_paths import CLUSTER, REPOSITORY

PROGRAMS = {
    "scontrol": """
        case "$*" in
          "show hostnames"*) printf 'n1\\nn2\\n' ;;
          *"show node n1") echo 'NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=n1' ;;
          "requeue 7") touch "$FAKES/requeued"; kill -TERM "$PPID" ;;
        esac""",
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        exec "$@" """,
    "ray": """
        echo "ray $*" >>"$FAKES/ray"
        [ ! -e "$FAKES/ray_cannot_start" ] || exit 0
        while [ "$1" != -- ]; do shift; done
        shift
        "$@"
        sleep "$(cat "$FAKES/lingers" 2>/dev/null || echo 0)" """,
    "s4": """
        echo "$*" >>"$FAKES/s4"
        stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$FAKES/mode"
        cat "$RAY_AUTH_TOKEN_PATH" >"$FAKES/token"
        env | grep -v '^_=' >"$FAKES/environment"
        [ -e "$FAKES/deaf" ] && trap '' TERM || trap 'exit "$(cat "$FAKES/code" 2>/dev/null || echo 130)"' TERM
        touch "$FAKES/running"
        for _ in $(seq "$(cat "$FAKES/tenths" 2>/dev/null || echo 0)"); do sleep 0.1; done""",
}
WORDS = ("tune", "digits_css", "--name", "a")


class Job:
    """One run of exclusive.sbatch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fakes = folder / "fakes"
        self.fakes.mkdir()
        self.log = folder / "log"
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
        for name, text in PROGRAMS.items():
            (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "FAKES": str(self.fakes),
            "S4_CHECKOUT": str(REPOSITORY),
            "S4_VENV": str(folder / "venv"),
            "S4_STORAGE": str(folder / "runs"),
            "S4_SCRATCH": str(folder),
            "S4_GRACE_SECONDS": "1",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_NNODES": "2",
            "SLURM_CPUS_ON_NODE": "4",
            "SLURM_SUBMIT_DIR": str(folder),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, words: Sequence[str] = WORDS) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", CLUSTER / "slurm" / "exclusive.sbatch", *words],
                env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def until_the_driver_runs(self) -> None:
        deadline = time.monotonic() + 30
        while not (self.fakes / "running").exists():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal as Slurm does: to the batch script alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def code(self) -> int:
        assert self._process is not None
        return self._process.wait(30)

    def stop(self) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    @property
    def requeued(self) -> bool:
        return (self.fakes / "requeued").exists()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    made.stop()


def test_a_driver_that_is_done_ends_the_job(job: Job) -> None:
    job.start()
    assert job.code() == 0, job.log.read_text()
    assert not job.requeued
    assert (job.fakes / "s4").read_text().split() == [
        *WORDS, "--address", "10.0.0.1:6379", "--storage", job.environment["S4_STORAGE"]
    ]  # fmt: skip
    assert "--min-nodes 2 --num-cpus=4" in (job.fakes / "ray").read_text()


def test_near_the_time_limit_the_driver_saves_and_the_job_goes_back_into_the_queue(job: Job) -> None:
    (job.fakes / "tenths").write_text("300")
    job.start()
    job.until_the_driver_runs()
    job.send(signal.SIGUSR1)
    job.code()
    assert job.requeued
    assert "ended with exit code 130" in job.log.read_text()


def test_a_job_that_begins_again_goes_on(job: Job, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.yaml").write_text("")
    job.environment["SLURM_RESTART_COUNT"] = "1"
    job.start()
    assert job.code() == 0
    assert (job.fakes / "s4").read_text().split()[-1] == "--resume"


def test_a_driver_that_does_not_end_in_time_is_killed_and_the_job_goes_back_into_the_queue(job: Job) -> None:
    (job.fakes / "tenths").write_text("300")
    (job.fakes / "deaf").write_text("")
    job.start()
    job.until_the_driver_runs()
    job.send(signal.SIGUSR1)
    job.code()
    assert job.requeued
    assert "ended with exit code 137" in job.log.read_text()


def test_a_job_that_its_user_ends_saves_and_stays_away(job: Job) -> None:
    (job.fakes / "tenths").write_text("300")
    job.start()
    job.until_the_driver_runs()
    job.send(signal.SIGTERM)
    assert job.code() == 130
    assert not job.requeued


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_driver_that_is_done_or_failed_near_the_limit_does_not_begin_again(job: Job, code: int) -> None:
    (job.fakes / "tenths").write_text("300")
    (job.fakes / "code").write_text(str(code))
    job.start()
    job.until_the_driver_runs()
    job.send(signal.SIGUSR1)
    assert job.code() == code
    assert not job.requeued


def test_a_job_begins_again_so_often_and_no_more(job: Job) -> None:
    (job.fakes / "tenths").write_text("300")
    job.environment |= {"SLURM_RESTART_COUNT": "3", "S4_MAX_RESTARTS": "3"}
    job.start()
    job.until_the_driver_runs()
    job.send(signal.SIGUSR1)
    assert job.code() == 130
    assert not job.requeued


def test_a_ray_that_cannot_start_is_a_failure(job: Job) -> None:
    (job.fakes / "ray_cannot_start").write_text("")
    job.start()
    assert job.code() == 1
    assert not job.requeued


def test_a_job_without_a_name_is_refused_before_ray_starts(job: Job) -> None:
    job.start(["tune", "digits_css"])
    assert job.code() == 2
    assert "--name must be given" in job.log.read_text()
    assert not (job.fakes / "ray").exists()


def test_nodes_that_linger_do_not_change_how_the_driver_ended(job: Job) -> None:
    (job.fakes / "lingers").write_text("2")
    job.start()
    assert job.code() == 0


def test_the_token_is_a_file_of_its_user_while_the_job_runs_and_nowhere_else(job: Job, tmp_path: Path) -> None:
    job.start()
    assert job.code() == 0
    token = (job.fakes / "token").read_text()
    assert len(token) == 64
    assert (job.fakes / "mode").read_text().strip() == "600"
    assert "RAY_AUTH_MODE=token" in (job.fakes / "environment").read_text().splitlines()
    elsewhere = (job.log, job.fakes / "ray", job.fakes / "s4", job.fakes / "environment")
    assert all(token not in path.read_text() for path in elsewhere)
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    assert stat.S_IMODE((tmp_path / "home" / ".s4" / "jobs").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("script", ["exclusive.sbatch", "shared.sbatch"])
def test_the_signal_leaves_time_for_the_driver_and_then_for_ray(script: str) -> None:
    (lead,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", (CLUSTER / "slurm" / script).read_text(), re.MULTILINE)
    (grace,) = re.findall(r"S4_GRACE_SECONDS:=(\d+)", (CLUSTER / "slurm" / "job.sh").read_text())
    assert int(lead) - int(grace) >= 40


@pytest.mark.parametrize("script", ["exclusive.sbatch", "shared.sbatch"])
@pytest.mark.parametrize("option", ["--requeue", "--open-mode=append", "--ntasks-per-node=1"])
def test_a_batch_script_asks_slurm_for_what_job_sh_counts_on(script: str, option: str) -> None:
    assert f"#SBATCH {option}" in (CLUSTER / "slurm" / script).read_text().splitlines()
