from __future__ import annotations

import asyncio
import inspect
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # for `invented`, which is no package of the product


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    wanted = inspect.signature(test).parameters
    asyncio.run(test(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True
