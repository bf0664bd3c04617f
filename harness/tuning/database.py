"""The database of an Optuna study that several drivers share: its URL, and a storage that outlasts a broken connection.

Light to import: the command line reads URLs here.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.formats import one_line
from harness.tracking.stores import WITH_PASSWORD
from trainers.errors import UsageError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

log = logging.getLogger(__name__)

AWAY_S = 120.0
"""How long a driver waits for a database that takes no connections, before it ends its session."""
RETRY_S = 1.0
LIBPQ: Mapping[str, int] = {
    "connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
"""Of PostgreSQL's client: a connection that a firewall forgot is given up after 30 s, where TCP alone takes 15 min."""
CONNECT: Mapping[str, Mapping[str, int]] = {
    "postgresql": LIBPQ, "postgresql+psycopg": LIBPQ, "postgresql+psycopg2": LIBPQ, "sqlite": {"timeout": 60},
}  # fmt: skip
"""Arguments of a connection by the scheme of its URL."""
OPENINGS = 5
"""How often a database is opened whose tables another driver makes at the same moment."""
CROSSED = re.compile(r"already exists|duplicate|UNIQUE|locked", re.IGNORECASE)
"""What databases say of that."""
SECRET = re.compile(r"[?&][a-z]*passw(or)?d=", re.IGNORECASE)


def study_url(url: str) -> str:
    """Return the URL of a study's database, the file of a SQLite one absolute.

    Raises:
        UsageError: it is none, or it holds a password, which would be shown and written down with it.
    """
    if WITH_PASSWORD.match(url) or SECRET.search(url):
        raise UsageError(
            "--study must hold no password, this URL does: leave it out, and put it in ~/.pgpass or PGPASSWORD "
            "(PostgreSQL), or into a file that the URL names with ?read_default_file=FILE (MySQL)"
        )
    if not re.fullmatch(r"[a-z0-9]+(\+[a-z0-9_]+)?://.+", url) or url == "sqlite:///":
        raise UsageError(
            f"--study must be a database's URL, as postgresql+psycopg://USER@HOST/DATABASE or sqlite:///FILE, got "
            f"{url!r}: correct it"
        )
    scheme, _, path = url.partition(":///")
    return f"{scheme}:///{Path(path).resolve()}" if scheme == "sqlite" else url


def open_database(url: str, lasting: bool = False) -> RDBStorage:
    """Open a study storage in a database, and make its tables where there are none.

    A lasting one keeps its connection. One that broke is made anew, and while the database takes none it is waited for,
    `AWAY_S` at most. Else each question has a connection of its own.

    Raises:
        UsageError: it cannot be reached or read, or the module of its driver is missing.
    """
    import optuna
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: dict[str, Any] = {"connect_args": dict(CONNECT.get(url.partition(":")[0], {}))}
    options |= {"pool_pre_ping": True} if lasting else {"poolclass": NullPool}
    for left in reversed(range(OPENINGS)):
        try:
            storage = RDBStorage(url, engine_kwargs=options)
        except Exception as error:  # whatever SQLAlchemy, Optuna or the module of a driver raise
            reason = said_by(error)
            if left and CROSSED.search(reason):
                time.sleep(RETRY_S / 2)
                continue
            raise UsageError(
                f"--study must be a database that can be reached, {url} is not ({reason}): check the URL, the server "
                "and that the module of its driver is installed"
            ) from None
        if lasting:
            _wait_for(storage.engine)
        return storage
    raise AssertionError("unreachable")


def said_by(error: BaseException) -> str:
    """Return what a database or its driver said, on one line, without the statement that was sent."""
    cause = error.__cause__ or error
    return one_line(getattr(cause, "orig", None) or cause, 200)


def _wait_for(engine: Any) -> None:
    """Let connections of an engine wait until the database takes them."""
    from sqlalchemy import event

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        deadline, said = time.monotonic() + AWAY_S, False
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.Error:
                if time.monotonic() > deadline:
                    raise
                if not said:
                    log.warning("the study's database takes no connections, waiting up to %g s for it", AWAY_S)
                said = True
                time.sleep(RETRY_S)
