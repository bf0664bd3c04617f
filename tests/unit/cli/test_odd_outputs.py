"""Output into what has not every letter, is closed, or has no reader any more: no traceback, and no run is ended."""

import os
import subprocess
import sys

import pytest

MAIN = "from harness.cli.main import main; main()"
SAYS = """
import sys
from harness.console import open_console
with open_console(False) as console:
    for _ in range(3):
        console.say("x" * 100_000)
sys.stderr.write("went on")
"""


def python(code: str, *arguments: str, line: str = 'exec "$@"', **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", line, "sh", sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_a_terminal_without_our_letters_shows_others() -> None:
    done = python(MAIN, "tune", "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--warm-start" in done.stdout


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_stream_that_was_closed_before_is_none_that_is_needed(stream: str) -> None:
    for arguments, code in ((["data", "--help"], 0), (["train", "--bogus"], 2)):
        done = python(MAIN, *arguments, line=f'exec "$@" {stream}>&-')
        assert done.returncode == code
        assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"]])
def test_a_reader_that_has_left_is_no_traceback(arguments: list[str]) -> None:
    done = python(MAIN, *arguments, line='"$@" | true')
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_goes_on_where_its_reader_has_left() -> None:
    assert python(SAYS, line='"$@" | true').stderr == "went on"
