"""Starts of sessions that never were: 31 s from the command to the first report."""

from harness.start import Start

DRIVER = {"began": 100.0, "imports": 102.0, "input": 103.0, "ray": 110.0, "plan": 110.2, "records": 110.5,
          "gangs": 111.0}  # fmt: skip
SHARED = {**DRIVER, "controllers": 112.0, "mlflow": 115.0, "submitted": 114.0, "told": 131.0}
FIRST = {"process": 105.0, "group": 116.0, "worker": 119.0, "gang": 120.0, "warm_up": 126.0, "trial": 126.1,
         "first_step": 127.0, "report": 130.0}  # fmt: skip
"""A gang on a process that Ray had in readiness."""
LAST = {name: stamp + 4.0 for name, stamp in FIRST.items()}


def made_start(*gangs: dict[str, float], shared: dict[str, float] = SHARED) -> Start:
    """Return a start with these gangs, numbered from 0; copies of everything."""
    return Start(dict(shared), {number: dict(stamps) for number, stamps in enumerate(gangs)})
