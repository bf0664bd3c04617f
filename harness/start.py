"""The start of a session, from the command to the first report: when each of its stages was over, and what it took.

Clocks are those of the nodes that the stages ran on: what is set differently there shifts their stamps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

BEGAN = "began"
"""Stamp of the beginning: of the command's process, or of the call of the Python API."""
DRIVER = {
    "imports": "Python and imports",
    "input": "input checked",
    "ray": "Ray started or joined",
    "plan": "gangs planned",
    "records": "records opened",
    "gangs": "session prepared",
}
"""Stages of the driver in order, by the name of the stamp that ends each. At the end of the last it asks for gangs."""
GANG = {
    "controllers": "process of controllers",
    "process": "process of the worker",
    "group": "Ray Train's setup of it",
    "worker": "imports of the worker",
    "gang": "gang formed",
    "warm_up": "warm-up",
    "trial": "wait for a trial",
    "first_step": "first step",
    "report": "to the first report",
}
"""Stages of a gang, which go on from those of the driver. The process may be one that Ray had in readiness."""
TOLD = {"told": "report at the driver"}
"""The last stage, of the gang that was first alone."""
MEANWHILE = {"mlflow": ("records", "first records in MLflow"), "submitted": ("gangs", "first trial submitted")}
"""Stages beside these, by the stamps that end them: the stamp that each begins at, and what it is."""


def process_began() -> float:
    """Return when this process began, in seconds since 1970, to 0.01 s; where the system does not say, now."""
    now = time.time()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):  # not Linux
        return now
    return now - max(0.0, age)


class Stage(NamedTuple):
    """A stage of a start."""

    name: str
    """Of the stamp that ended it."""
    words: str
    began_s: float
    """Since the beginning."""
    took_s: float
    meanwhile: bool = False
    """Whether it ran beside the others."""

    @property
    def ended_s(self) -> float:
        """When it was over, since the beginning."""
        return self.began_s + self.took_s


@dataclass
class Start:
    """Stamps of a start, in seconds since 1970. Of each the first is kept."""

    shared: dict[str, float] = field(default_factory=dict)
    """Of the driver, and of what all gangs share."""
    gangs: dict[int, dict[str, float]] = field(default_factory=dict)
    """Of each gang, by its number."""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Self:
        """Return the start that a ledger's event tells.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it has another shape.
        """
        gangs = {int(gang): _stamps(stamps) for gang, stamps in event["gangs"].items()}
        return cls(_stamps(event["shared"]), gangs)

    @classmethod
    def since(cls, command_began: float | None) -> Self:
        """Return the start of a call that begins now; `command_began`: when the command did that makes it."""
        now = time.time()
        return cls({BEGAN: now} if command_began is None else {BEGAN: command_began, "imports": now})

    def note(self, stamps: Mapping[str, float], gang: int | None = None) -> None:
        """Take in stamps of a gang; none: that all share."""
        known = self.shared if gang is None else self.gangs.setdefault(gang, {})
        for name, stamp in stamps.items():
            known.setdefault(name, stamp)

    def mark(self, name: str, gang: int | None = None) -> None:
        """Take note that a stage is over now."""
        self.note({name: time.time()}, gang)

    def take_in(self, other: Start) -> None:
        """Take in what another process has noted."""
        self.note(other.shared)
        for gang, stamps in other.gangs.items():
            self.note(stamps, gang)

    @property
    def by_report(self) -> list[int]:
        """Gangs that have reported, in the order of their first reports."""
        reports = {gang: stamps["report"] for gang, stamps in self.gangs.items() if "report" in stamps}
        return sorted(reports, key=lambda gang: (reports[gang], gang))

    @property
    def took_s(self) -> float:
        """Seconds from the beginning to the first report at the driver; 0 where there was none."""
        stages = self.stages()
        return stages[-1].ended_s if stages and stages[-1].name in TOLD else 0.0

    def stages(self) -> list[Stage]:
        """Return the stages of the driver and of the gang that was first: each begins where the one before ended.

        A stage without a stamp is part of the next. One whose stamp lies before the end of the one before took no time:
        it was over already, as a process that Ray had in readiness.
        """
        first = self.by_report[:1] or sorted(self.gangs)[:1]
        stamps = {**self.shared, **(self.gangs[first[0]] if first else {})}
        return self._chain(DRIVER | GANG | TOLD, stamps, self._began)

    def stages_of(self, gang: int) -> list[Stage]:
        """Return the stages of a gang, from the moment that gangs were asked for to its first report."""
        asked = max((stage.ended_s for stage in self.stages() if stage.name in DRIVER), default=0.0)
        return self._chain(GANG, {**self.shared, **self.gangs[gang]}, self._began + asked)

    def meanwhile(self) -> list[Stage]:
        """Return the stages beside these, as far as both their ends are known."""
        known = [(name, words, self.shared[since]) for name, (since, words) in MEANWHILE.items()
                 if name in self.shared and since in self.shared]  # fmt: skip
        return [Stage(name, words, since - self._began, max(0.0, self.shared[name] - since), meanwhile=True)
                for name, words, since in known]  # fmt: skip

    @property
    def _began(self) -> float:
        return min(self.shared.values(), default=0.0)

    def _chain(self, words: Mapping[str, str], stamps: Mapping[str, float], last: float) -> list[Stage]:
        stages = []
        for name in (name for name in words if name in stamps):
            now = max(last, stamps[name])
            stages.append(Stage(name, words[name], last - self._began, now - last))
            last = now
        return stages


def _stamps(stamps: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(stamp) for name, stamp in stamps.items()}
