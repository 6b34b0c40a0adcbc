"""The file that a run is recorded in: its tables, their version, and how it is opened, for writing and for reading.

Theory of operation. A run writes its own database, and reads databases of runs that may come from anywhere: a colleague's
folder on a shared disk, an archive, a download. So a reader opens the file read-only and trusts nothing in it. Views,
triggers, virtual tables and generated columns are refused, because no kappahop makes them and each can compute without end;
one query may take `QUERY_S` and give `MAX_ROWS`. Whatever is wrong ends in one sentence that names the file.

While a run goes on its database is in WAL mode. At its end the run leaves that mode, so that the one file holds everything
and can be read where its folder cannot be written. A file that is still marked as WAL, without a `-wal` beside it, is
complete too, and is then opened as immutable.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from scenarios.loading import ScenarioError

DATABASE = "run.sqlite"
VERSION = 3  # of the schema, in the file's `user_version`; files of the time before it was counted have 0
BUSY_MS = 100  # how long a run's writing may hold up the command; then it tries again later
QUERY_S = 60.0  # one query; the largest of a report on 10^6 episodes takes 4 s
MAX_ROWS = 20_000_000  # of one query
MAX_VALUE_BYTES = 1 << 26  # of one text; the longest that a run writes is an event of a few kB
_STEPS = 100_000  # of SQLite's machine between two looks at the clock: a few milliseconds

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episodes(
  round INTEGER NOT NULL, env_step INTEGER NOT NULL, copy INTEGER NOT NULL,
  return REAL, cost REAL, costs TEXT NOT NULL, length INTEGER NOT NULL, measures TEXT NOT NULL,
  PRIMARY KEY (env_step, copy)) WITHOUT ROWID;
CREATE TABLE rounds(
  round INTEGER NOT NULL, agent INTEGER NOT NULL, env_step INTEGER NOT NULL, wall_s REAL NOT NULL, virtual_s REAL NOT NULL,
  value_loss REAL, advantage_std REAL, kl REAL, entropy REAL, std REAL, clip_frac REAL, grad_norm REAL,
  multiplier_0 REAL, cost_value_loss_0 REAL, episode_cost_0 REAL, more TEXT NOT NULL,
  PRIMARY KEY (round, agent)) WITHOUT ROWID;
CREATE TABLE traffic(
  round INTEGER NOT NULL, plane TEXT NOT NULL, src TEXT NOT NULL, dst TEXT NOT NULL, kind TEXT NOT NULL,
  messages INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, wire_bytes INTEGER NOT NULL,
  resent_bytes INTEGER NOT NULL, delivered INTEGER NOT NULL, dropped INTEGER NOT NULL,
  loss INTEGER NOT NULL, queue INTEGER NOT NULL, outage INTEGER NOT NULL, crash INTEGER NOT NULL, gave_up INTEGER NOT NULL,
  late INTEGER NOT NULL, in_flight INTEGER NOT NULL, nulls INTEGER NOT NULL,
  PRIMARY KEY (round, plane, src, dst, kind)) WITHOUT ROWID;
CREATE TABLE ages(
  round INTEGER NOT NULL, agent INTEGER NOT NULL, origin INTEGER NOT NULL,
  used INTEGER NOT NULL, missing INTEGER NOT NULL, mean_s REAL NOT NULL, max_s REAL NOT NULL,
  PRIMARY KEY (round, agent, origin)) WITHOUT ROWID;
CREATE TABLE evaluations(
  round INTEGER NOT NULL, env_step INTEGER NOT NULL, copy INTEGER NOT NULL,
  return REAL, cost REAL, costs TEXT NOT NULL, length INTEGER NOT NULL, at_end INTEGER NOT NULL,
  measures TEXT NOT NULL,
  PRIMARY KEY (round, at_end, copy)) WITHOUT ROWID;
CREATE TABLE evaluation_traffic(
  round INTEGER NOT NULL, at_end INTEGER NOT NULL, plane TEXT NOT NULL, kind TEXT NOT NULL,
  messages INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, wire_bytes INTEGER NOT NULL,
  resent_bytes INTEGER NOT NULL, delivered INTEGER NOT NULL, dropped INTEGER NOT NULL,
  loss INTEGER NOT NULL, queue INTEGER NOT NULL, outage INTEGER NOT NULL, crash INTEGER NOT NULL, gave_up INTEGER NOT NULL,
  late INTEGER NOT NULL, in_flight INTEGER NOT NULL, nulls INTEGER NOT NULL,
  PRIMARY KEY (round, at_end, plane, kind)) WITHOUT ROWID;
CREATE TABLE events(wall_s REAL NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, virtual_s REAL, round INTEGER);
"""
_BY_ROUND = ("rounds", "traffic", "ages")  # tables whose key begins with the round


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error is none of SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether an error says that another program keeps the database locked."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_database(run_dir: Path) -> sqlite3.Connection:
    """A run's database for the run that goes on in it.

    Raises:
        ScenarioError: there is none, it is of another schema, or it cannot be written.
    """
    path = run_dir / DATABASE
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        refusal = _refusal(path, error, "written")
        raise refusal from None
    try:
        _refuse_foreign(database, path)
        with closing(sqlite3.connect(":memory:")) as model:
            model.executescript(SCHEMA)
            for table, columns in _columns(model).items():
                if _columns(database).get(table) != columns:
                    raise ScenarioError(
                        f"{path}: its table {table} is not as this kappahop writes it (another version recorded it); "
                        "go on with that version, or begin the run again"
                    )
        begin_writing(database)
    except sqlite3.Error as error:
        database.close()
        refusal = _refusal(path, error, "written")
        raise refusal from None
    except ScenarioError:
        database.close()
        raise
    return database


def begin_writing(database: sqlite3.Connection) -> None:
    """Set a database up for a run that goes on: readers may read meanwhile."""
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute(f"PRAGMA user_version={VERSION}")
    database.execute(f"PRAGMA busy_timeout={BUSY_MS}")


class Reader:
    """A run's database, for reading, during the run or after it.

    Args:
        run_dir: The run's directory.

    Raises:
        ScenarioError: there is none, it cannot be read, or it holds what no kappahop writes.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / DATABASE
        self._until = time.monotonic() + QUERY_S
        try:
            self._database = _connected(self._path.resolve())
        except sqlite3.Error as error:
            refusal = _refusal(self._path, error)
            raise refusal from None
        self._version = VERSION
        try:
            (self._version,) = self._database.execute("PRAGMA user_version").fetchone()
            self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            self._database.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)
            _refuse_foreign(self._database, self._path)
            for table in set(_BY_ROUND) & set(_columns(self._database)):
                for extreme in self.query(f"SELECT min(round), max(round) FROM {table}")[1][0]:
                    if extreme is not None and not (isinstance(extreme, int) and extreme >= 0):
                        raise ScenarioError(f"{self._path}: cannot be read (table {table}: a round is {str(extreme)[:40]!r})")
        except sqlite3.Error as error:
            self.close()
            refusal = _refusal(self._path, error)
            raise refusal from None
        except ScenarioError:
            self.close()
            raise

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of columns, and rows.

        Raises:
            ScenarioError: the query cannot be carried out, takes too long, or gives too much.
        """
        self._until = time.monotonic() + QUERY_S
        try:
            found = self._database.execute(sql)
            rows = found.fetchmany(MAX_ROWS + 1)
        except (sqlite3.Error, MemoryError) as error:
            refusal = _refusal(self._path, error, sql=sql, version=self._version)
            raise refusal from None
        if len(rows) > MAX_ROWS:
            raise ScenarioError(f"{self._path}: cannot be read (more than {MAX_ROWS:,} rows: {sql})")
        return [column[0] for column in found.description], rows

    def has(self, table: str, column: str) -> bool:
        """Whether the file has such a column; one of an older schema may lack it."""
        return column in (name for name, _ in _columns(self._database).get(table, ()))

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _connected(path: Path) -> sqlite3.Connection:
    """A connection that only reads, and reads what lies in a folder that cannot be written.

    Raises:
        Error: there is no file, or it is no database.
        OperationalError: a part of it lies beside it and cannot be read.
    """
    beside = path.with_name(f"{path.name}-wal")
    for how in ("mode=ro", "mode=ro&immutable=1"):
        database = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)
        try:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            database.close()
            if code_of(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not path.is_file():
                raise
            if beside.exists() and beside.stat().st_size:
                raise sqlite3.OperationalError(
                    f"{error}; {beside.name} holds a part of it, as the run did not end by itself; copy the folder to where you "
                    "can write"
                ) from None
            continue
        return database
    raise sqlite3.OperationalError("unable to open database file")


def _refuse_foreign(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a file of a later schema, and whatever in it would compute.

    Raises:
        ScenarioError: there is such.
    """
    database.execute("PRAGMA trusted_schema=OFF")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ScenarioError(
            f"{path}: recorded by a newer kappahop (schema {version}; this one knows {VERSION}); read it with that version"
        )
    for kind, name, page in database.execute("SELECT type, name, rootpage FROM sqlite_master").fetchall():
        if kind not in ("table", "index") or not page:
            raise ScenarioError(f"{path}: {name!r} is a {kind if page or kind != 'table' else 'virtual table'}, expected tables")
        if kind == "table" and any(hidden for *_, hidden in database.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))):
            raise ScenarioError(f"{path}: table {name!r} has generated columns, expected none")


def _columns(database: sqlite3.Connection) -> dict[str, list[tuple[str, str]]]:
    """Name and type of every column, by table."""
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: list(database.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()) for table in tables}


def _refusal(path: Path, error: Exception, what: str = "read", *, sql: str = "", version: int = VERSION) -> ScenarioError:
    code = code_of(error) if isinstance(error, sqlite3.Error) else 0
    if code == sqlite3.SQLITE_INTERRUPT:
        return ScenarioError(f"{path}: cannot be read (a query took more than {QUERY_S:g} s: {sql})")
    if not path.exists():
        return ScenarioError(f"{path}: no such file")
    told = " ".join(str(error).split()) or type(error).__name__
    if code == sqlite3.SQLITE_ERROR and version < VERSION:  # it lacks something
        told += f"; an older kappahop recorded it (schema {version}; this one knows {VERSION})"
    return ScenarioError(f"{path}: cannot be {what} ({told})")
