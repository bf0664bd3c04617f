"""`s4` on a host, and what it left behind."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts import Host, Hosts, interrupt, wait_for

from harness.ledger import LEDGER
from harness.run_folder import LATEST, PREVIOUS
from trainers.checkpoint import load_checkpoint

TIMEOUT_S = 240.0


@dataclass
class Command:
    """A command that runs on a host."""

    process: subprocess.Popen[bytes]
    log: Path
    folder: Path
    """Of the search or training."""

    def wait(self, timeout: float = TIMEOUT_S) -> str:
        """Wait for its end, which must be a good one; return what it said."""
        code = self.process.wait(timeout)
        said = self.log.read_text()
        assert code == 0, f"it ended with {code}:\n{said[-3000:]}"
        return said

    def reports(self) -> list[tuple[int, int]]:
        """Return trial and step of each report so far."""
        return [
            (event["trial"], int(event["metrics"]["step"])) for event in self.events() if event["event"] == "report"
        ]

    def events(self) -> list[Mapping[str, Any]]:
        """Return what its ledger says so far."""
        ledger = self.folder / LEDGER
        lines = ledger.read_bytes().split(b"\n")[:-1] if ledger.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for_reports(self, number: int, trials: int = 1) -> None:
        """Wait until so many reports were made, of as many trials at least."""

        def made() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            reports = self.reports()
            return len(reports) >= number and len({trial for trial, _ in reports}) >= trials

        wait_for(made, f"{number} reports of {trials} trials in {self.folder}", TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, in the middle of what it does."""
        interrupt(self.process, signal.SIGKILL)
        self.process.wait()

    def saved_step(self) -> int:
        """Return the step of a training's last checkpoint, which has its place's name a moment after the one before."""
        latest = self.folder / LATEST
        return int(load_checkpoint(latest if latest.exists() else self.folder / PREVIOUS)["step"])


def start(host: Host, cluster: Hosts, command: str, name: str, storage: Path, options: Sequence[str]) -> Command:
    """Start `s4 train` or `s4 tune` on a host, recorded in a store beside its storage."""
    storage.mkdir(parents=True, exist_ok=True)
    log = storage / f"{name}.log"
    words = [
        "s4", command, "--address", cluster.address, "--storage", str(storage), "--name", name,
        "--tracking-uri", f"sqlite:///{storage}/mlflow.db", *options,
    ]  # fmt: skip
    return Command(host.start(*words, log=log, cwd=storage), log, storage / name)


def settings(**values: Any) -> list[str]:
    """Return `--set` options; a double underscore stands for the dot."""
    return [word for path, value in values.items() for word in ("--set", f"{path.replace('__', '.')}={value}")]
