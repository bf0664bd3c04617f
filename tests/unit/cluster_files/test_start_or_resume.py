"""`start-or-resume.sh` begins what has not begun, and goes on with what has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cluster_paths import CLUSTER

SCRIPT = CLUSTER / "start-or-resume.sh"
FAKE_S4 = '#!/bin/sh\nprintf "%s\\n" "$@"\n'


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script with an `s4` that says what it was given."""
    fake = folder / "bin" / "s4"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(FAKE_S4)
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    return subprocess.run([SCRIPT, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def begun(folder: Path, name: str, file: str) -> None:
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / file).write_text("")


def test_what_has_no_folder_yet_begins(tmp_path: Path) -> None:
    words = ["tune", "digits_css", "--name", "a", "--storage", "runs"]
    assert run(tmp_path, *words).stdout.split() == words


@pytest.mark.parametrize(("command", "file"), [("tune", "run.yaml"), ("train", "run.yaml"), ("tune", "search.yaml")])
def test_what_has_begun_goes_on(tmp_path: Path, command: str, file: str) -> None:
    begun(tmp_path, "a", file)
    words = [command, "--name", "a", "--storage", "runs"]
    assert run(tmp_path, *words).stdout.split() == [*words, "--resume"]


def test_options_may_be_written_with_an_equals_sign(tmp_path: Path) -> None:
    begun(tmp_path, "a", "run.yaml")
    words = ["tune", "--name=a", "--storage=runs"]
    assert run(tmp_path, *words).stdout.split() == [*words, "--resume"]


def test_a_folder_that_was_made_before_anything_was_checked_begins(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    words = ["tune", "--name", "a", "--storage", "runs"]
    assert run(tmp_path, *words).stdout.split() == words


def test_words_with_spaces_stay_whole(tmp_path: Path) -> None:
    words = ["train", "--name", "a", "--storage", "runs", "--set", "data.root=/a folder"]
    assert run(tmp_path, *words).stdout.splitlines() == words


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["tune", "--storage", "runs"], "--name must be given"),
        (["tune", "--name", "a"], "--storage must name a folder"),
        (["tune", "--storage", "runs", "--name"], "--name must be given"),
        (["tune", "--name", "a", "--storage", "runs", "--resume"], "--resume must be left out"),
    ],
)
def test_what_a_second_start_could_not_find_is_refused(tmp_path: Path, words: list[str], missing: str) -> None:
    done = run(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert missing in done.stderr
