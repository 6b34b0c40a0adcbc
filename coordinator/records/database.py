"""Recording a run: a SQLite file in WAL mode, which others may read while the run goes on, and sinks of scalars.

Only the coordinator writes. What processes report in any order ends up the same: rows have keys that do not depend on
arrival, and traffic rows of the same key are added up (the sender books what was sent, the receiver what arrived).

Rows wait in memory until `commit` writes them all in one transaction. So a commit that fails loses nothing, and can be tried
again: while another program keeps the database locked, rows wait for up to `LOCKED_S`; a database that was deleted is
written again, as the open file still holds it. Only `commit` can raise `RecordingError`; everything else succeeds always.
A sink that cannot write is left out from then on: the database is the record.
"""

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from coordinator.records.run_sqlite import DATABASE, SCHEMA, Reader, begin_writing, code_of, is_busy, open_database
from coordinator.records.sinks import Sink
from scenarios.loading import ScenarioError
from topology.files import replacing
from topology.planes.control import EpisodeRow, RoundReport
from topology.wire.ledger import Row, imbalance

LOCKED_S = 60.0  # how long another program may keep the database locked
_LOOK_S = 0.25  # how often a run that has ended looks whether it still is
_ADD_TRAFFIC = f"INSERT INTO traffic VALUES ({', '.join('?' * len(Row._fields))}) ON CONFLICT DO UPDATE SET " + ", ".join(
    f"{name} = {name} + excluded.{name}" for name in Row._fields[5:]
)
_ROUND_COLUMNS = (
    "value_loss", "advantage_std", "kl", "entropy", "std", "clip_frac", "grad_norm",
    "multiplier_0", "cost_value_loss_0", "episode_cost_0",
)  # fmt: skip


Cost = float | Sequence[float]  # of an episode: the team's, or that of every agent


class Mean(NamedTuple):
    """Of an evaluation: mean return, and mean of each cost; nan where a fault ended an episode.

    Where agents are charged with costs of their own, a cost is that of the agent that pays most on average.
    """

    ret: float
    costs: tuple[float, ...]

    @classmethod
    def of(cls, episodes: Sequence[tuple[float, Sequence[Cost]]]) -> "Mean":
        """That of some episodes, given as their return and what was charged."""
        costs = np.mean([charged for _, charged in episodes], axis=0)
        most = costs.max(axis=1) if costs.ndim == 2 else costs
        return cls(float(np.mean([ret for ret, _ in episodes])), tuple(most.tolist()))


class RecordingError(Exception):
    """What a run reports cannot be written down; the text names the file, the cause, and what helps."""


class Recorder:
    """Writer of a run's database, which tells scalars to sinks as well.

    Args:
        run_dir: The run's directory.
        env_steps_per_round: E·T.
        measures: Names of the world's own metrics.
        sinks: What is told every scalar; closed with the recorder.
        resumed_after: Round from which the run goes on: what was recorded of later ones is dropped.
        reopened: Whether the run is over, and only something is added.

    Raises:
        RecordingError: the database cannot be made.
        ScenarioError: the database of the run that goes on cannot be written, or is of another schema.

    Attributes:
        wall_s: Seconds that the run has taken up to where it goes on.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        env_steps_per_round: int,
        measures: Sequence[str] = (),
        sinks: Sequence[Sink] = (),
        resumed_after: int | None = None,
        reopened: bool = False,
    ) -> None:
        self._path = run_dir / DATABASE
        self._waiting: list[tuple[str, list[tuple[Any, ...]]]] = []  # statements since the last commit, each with its rows
        self._locked_since: float | None = None
        self._per_round = env_steps_per_round
        self._measures = tuple(measures)
        self._sinks = list(sinks)
        self.wall_s = 0.0
        try:
            if resumed_after is None and not reopened:
                self._database = sqlite3.connect(self._path, isolation_level=None)
                begin_writing(self._database)
                self._database.executescript(SCHEMA)
            else:
                self._database = open_database(run_dir)
            self._place = self._where()
            if resumed_after is not None:
                self._go_back(resumed_after)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from None

    def _go_back(self, round_: int) -> None:
        """Drop what was recorded of later rounds, and of the run's end."""
        for table in ("episodes", "rounds", "traffic", "ages", "events"):
            self._keep(f"DELETE FROM {table} WHERE round > ?", [(round_,)])
        for table in ("evaluations", "evaluation_traffic"):  # those at the end are of weights that are to come again
            self._keep(f"DELETE FROM {table} WHERE round > ? OR at_end", [(round_,)])
        # only at its end does a run tell what of earlier rounds is still on the way
        self._keep("UPDATE traffic SET delivered = delivered + in_flight, in_flight = 0 WHERE in_flight > 0", [()])
        self._keep("DELETE FROM meta", [()])
        self.commit_at_last()
        (self.wall_s,) = self._database.execute("SELECT coalesce(max(wall_s), 0.0) FROM rounds").fetchone()

    def meta(self, **values: object) -> None:
        """Keep facts about the run, as JSON by name."""
        self._keep("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()])

    def episodes(self, episodes: Iterable[EpisodeRow]) -> None:
        """Keep finished episodes; `cost` is the sum over the team's costs, `costs` lists what was charged (`_written`)."""
        for episode in episodes:
            cost = sum(episode.cost)
            costs = _written(episode)
            self._keep(
                "INSERT INTO episodes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        episode.round, episode.env_step, episode.copy_index, episode.ret, cost, costs, episode.length,
                        self._measured(episode),
                    )
                ],
            )  # fmt: skip
            if math.isfinite(episode.ret):
                self._tell_sinks(episode.env_step, {"episode/return": episode.ret, "episode/cost": cost})

    def _measured(self, episode: EpisodeRow) -> str:
        """The world's own metrics of an episode, as JSON by name; a world process that gives others gives none."""
        known = len(episode.measures) == len(self._measures)
        return json.dumps(dict(zip(self._measures, map(_number, episode.measures), strict=True)) if known else {})

    def round(self, report: RoundReport, wall_s: float) -> None:
        """Keep a node's metrics of a round, and its traffic."""
        env_step = (report.round + 1) * self._per_round
        known = [report.metrics.get(name) for name in _ROUND_COLUMNS]
        more = {name: _number(value) for name, value in report.metrics.items() if name not in _ROUND_COLUMNS}
        self._keep(
            f"INSERT INTO rounds VALUES ({', '.join('?' * (len(_ROUND_COLUMNS) + 6))})",
            [(report.round, report.agent, env_step, wall_s, report.virtual_s, *known, json.dumps(more))],
        )
        self.traffic(report.traffic)
        self._keep("INSERT INTO ages VALUES (?, ?, ?, ?, ?, ?, ?)", [(report.round, report.agent, *row) for row in report.ages])
        for virtual_s, text in report.incidents:
            self.event(wall_s, report.role, text, virtual_s=virtual_s, round_=report.round)
        self.refusals(wall_s, report.role, report.round, report.refused, report.refusals)
        self._tell_sinks(env_step, {f"agent {report.agent}/{name}": value for name, value in report.metrics.items()})

    def add(self, round_: int, agent: int, metrics: Mapping[str, float]) -> None:
        """Keep more figures of an agent's round, which are known only when those of all agents are."""
        self._keep(
            "UPDATE rounds SET more = json_patch(more, ?) WHERE round = ? AND agent = ?",
            [(json.dumps({name: _number(value) for name, value in metrics.items()}), round_, agent)],
        )
        self._tell_sinks((round_ + 1) * self._per_round, {f"agent {agent}/{name}": value for name, value in metrics.items()})

    def evaluation(
        self, round_: int, env_step: int, episodes: Sequence[EpisodeRow], traffic: Iterable[Row], *, at_end: bool
    ) -> None:
        """Keep an evaluation of the policies after a round."""
        found = []
        for episode in episodes:
            cost, costs = sum(episode.cost), _written(episode)
            found.append((
                round_, env_step, episode.copy_index, episode.ret, cost, costs, episode.length, at_end, self._measured(episode),
            ))  # fmt: skip
        self._keep("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", found)
        self._keep(
            f"INSERT INTO evaluation_traffic VALUES ({', '.join('?' * (len(Row._field_defaults) + 4))})",
            [(round_, at_end, row.plane, row.kind, *row.counts) for row in traffic],
        )
        mean = Mean.of([(episode.ret, episode.cost) for episode in episodes])
        self._tell_sinks(env_step, {"evaluation/return": mean.ret, "evaluation/cost": sum(mean.costs)})

    def evaluated(self) -> dict[tuple[int, bool], Mean]:
        """What had been recorded of evaluations when the database was opened.

        Returns:
            By round, and whether it was an evaluation at the end.
        """
        found: dict[tuple[int, bool], list[tuple[float, list[Cost]]]] = {}
        rows = self._database.execute('SELECT round, at_end, "return", costs FROM evaluations ORDER BY round, at_end, copy')
        for round_, at_end, ret, costs in rows:
            found.setdefault((round_, bool(at_end)), []).append((_or_nan(ret), _read(costs)))
        return {key: Mean.of(each) for key, each in found.items()}

    def traffic(self, rows: Iterable[Row]) -> None:
        """Add ledger rows to what is known of their links."""
        self._keep(_ADD_TRAFFIC, list(rows))

    def refusals(self, wall_s: float, role: str, round_: int, total: int, texts: Iterable[str]) -> None:
        """Keep how many frames a process refused in a round, and the first reasons."""
        if total:
            self.event(wall_s, role, f"refused {total} frames", round_=round_)
        for text in texts:
            self.event(wall_s, role, f"refused: {text}", round_=round_)

    def event(self, wall_s: float, role: str, text: str, *, virtual_s: float | None = None, round_: int | None = None) -> None:
        """Keep something that happened, with its virtual time and its round if it has them."""
        self._keep("INSERT INTO events VALUES (?, ?, ?, ?, ?)", [(wall_s, role, text, virtual_s, round_)])

    def commit(self) -> bool:
        """Make everything so far visible to readers.

        Returns:
            Whether it is; if not, another program keeps the database locked, and the next commit tries again.

        Raises:
            RecordingError: it cannot be written, or another program has kept the database locked for `LOCKED_S`.
        """
        try:
            if self._where() != self._place:
                self._put_back()
            self._write()
        except ScenarioError as error:
            raise RecordingError(str(error)) from None
        except (OSError, sqlite3.Error) as error:
            if not (isinstance(error, sqlite3.Error) and is_busy(error)):
                raise self._failure(error) from None
            self._locked_since = self._locked_since or time.monotonic()
            if time.monotonic() - self._locked_since > LOCKED_S:
                raise self._failure(error) from None
            return False
        self._locked_since = None
        for sink in list(self._sinks):
            try:
                sink.flush()
            except OSError as error:
                self._leave_out(sink, error)
        return True

    def commit_at_last(self) -> None:
        """Commit, and wait for whatever keeps the database locked.

        Raises:
            RecordingError: as `commit`.
        """
        while not self.commit():
            time.sleep(_LOOK_S)  # noqa: TID251  (the run is over: nothing else waits)

    def close(self) -> None:
        """Commit, bring everything into the one file, so that a copy of it is a copy of all, and close.

        Raises:
            RecordingError: what has not been committed cannot be written.
        """
        try:
            self.commit_at_last()
            with contextlib.suppress(sqlite3.Error):  # a reader is at work: then the file is as whole as while the run went on
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # closing does so only if no reader is left
                self._database.execute("PRAGMA journal_mode=DELETE")  # what is in WAL mode needs a folder that can be written
        finally:
            self._database.close()
            for sink in self._sinks:
                with contextlib.suppress(OSError):
                    sink.close()

    def _keep(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        self._waiting.append((sql, rows))

    def _write(self) -> None:
        """Write what waits, all or nothing.

        Raises:
            sqlite3.Error: nothing of it could be written.
        """
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in self._waiting:
                self._database.executemany(sql, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error:
            if self._database.in_transaction:  # of some errors SQLite ends it itself
                self._database.execute("ROLLBACK")
            raise
        self._waiting.clear()

    def _where(self) -> tuple[int, int] | None:
        """Which file lies at the database's place; None: no file does."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _put_back(self) -> None:
        """Write the database again where it has been deleted; the open file still holds all of it.

        Raises:
            FileExistsError: another file lies there now.
            FileNotFoundError: its folder is gone too. Another OSError: it cannot be written.
        """
        if self._where() is not None:
            raise FileExistsError("another file was put in its place while the run went on")
        if not self._path.parent.is_dir():
            raise FileNotFoundError("the run's folder was deleted while the run went on")
        with replacing(self._path) as partial:
            with contextlib.closing(sqlite3.connect(partial)) as copy:
                self._database.backup(copy)
            self._database.close()
            for beside in ("-wal", "-shm"):  # of the deleted file: they would be taken for the new one's
                self._path.with_name(f"{DATABASE}{beside}").unlink(missing_ok=True)
        self._database = open_database(self._path.parent)
        self._place = self._where()
        self.event(0.0, "coordinator", f"{DATABASE} was deleted while the run went on, and has been written again")

    def _failure(self, error: OSError | sqlite3.Error) -> RecordingError:
        if isinstance(error, OSError):
            return RecordingError(f"{self._path}: cannot be written ({error.strerror or error})")
        if is_busy(error):
            return RecordingError(
                f"{self._path}: cannot be written (another program has kept it locked for {LOCKED_S:g} s); close it there"
            )
        cure = "; make room on its disk" if code_of(error) == sqlite3.SQLITE_FULL else ""
        return RecordingError(f"{self._path}: cannot be written ({error}){cure}")

    def _tell_sinks(self, step: int, values: dict[str, float]) -> None:
        for sink in list(self._sinks):
            try:
                sink.scalars(step, values)
            except OSError as error:
                self._leave_out(sink, error)

    def _leave_out(self, sink: Sink, error: OSError) -> None:
        self._sinks.remove(sink)
        self.event(0.0, "coordinator", f"{type(sink).__name__} gets no more scalars ({error.strerror or error})")


def metric_in_sql(metric: str) -> str:
    """Where a metric stands in `rounds`."""
    return f'"{metric}"' if metric in _ROUND_COLUMNS else f"json_extract(more, '$.{metric}')"


def _or_nan(value: float | int | None) -> float:
    return math.nan if value is None else float(value)


def _written(episode: EpisodeRow) -> str:
    """What was charged for an episode as JSON: a number per cost, or a list with every agent's. What is no number is null."""
    return json.dumps([_number(part) if isinstance(part, float) else [*map(_number, part)] for part in episode.charged])


def _read(costs: str) -> list[Cost]:
    return [[*map(_or_nan, part)] if isinstance(part, list) else _or_nan(part) for part in json.loads(costs)]


def _number(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


class Quarter(NamedTuple):
    """A quarter of a run's episodes: mean return and cost (nan where one is not known), how many, how many without a return."""

    ret: float
    cost: float
    episodes: int
    faulty: int


class Results:
    """Reading a run's database, during the run or after it.

    Args:
        run_dir: The run's directory.

    Raises:
        ScenarioError: the database cannot be read; so all methods.
    """

    def __init__(self, run_dir: Path) -> None:
        self._database = Reader(run_dir)

    def ledger_sha256(self) -> str:
        """Digest of all traffic rows, in key order."""
        sha = hashlib.sha256()
        for row in self.traffic():
            sha.update(json.dumps(row).encode())
        return sha.hexdigest()

    def peer_bytes(self) -> tuple[int, int]:
        """Payload and wire bytes of the peer plane, and of the central one where there is a central critic."""
        payload, wire = self._rows(
            "SELECT coalesce(sum(payload_bytes), 0), coalesce(sum(wire_bytes), 0) FROM traffic WHERE plane != 'world'"
        )[0]
        return int(payload), int(wire)

    def virtual_s(self) -> float:
        """Virtual time at which the slowest agent had ended its last round."""
        return float(self._rows("SELECT coalesce(max(virtual_s), 0) FROM rounds")[0][0])

    def delivered_frac(self, gone: Iterable[int] = ()) -> float | None:
        """Part of the messages between nodes that were delivered, links of agents that died apart; None if there were none."""
        left_out = {str(agent) for agent in gone}
        rows = [row for row in self.traffic() if row.plane != "world" and not {row.src, row.dst} & left_out]
        sent = sum(row.messages for row in rows)
        return sum(row.delivered for row in rows) / sent if sent else None

    def mean_age_s(self) -> float | None:
        """Mean age of the states that agents acted on, over all agents, origins, steps and copies; None without peers."""
        used, aged = self._rows("SELECT coalesce(sum(used), 0), sum(used * mean_s) FROM ages")[0]
        return aged / used if used else None

    def quarters(self) -> list[Quarter]:
        """The episodes in order of their end, by quarter; nothing of fewer than four."""
        rows = self._rows('SELECT "return", cost FROM episodes ORDER BY env_step, copy')
        if len(rows) < 4:
            return []
        edges = [len(rows) * i // 4 for i in range(5)]
        parts = [[(_or_nan(ret), _or_nan(cost)) for ret, cost in rows[a:b]] for a, b in pairwise(edges)]
        return [
            Quarter(
                sum(ret for ret, _ in part) / len(part),
                sum(cost for _, cost in part) / len(part),
                len(part),
                sum(math.isnan(ret) for ret, _ in part),
            )
            for part in parts
        ]

    def episodes(self, column: Literal["return", "cost", "length"]) -> list[tuple[int, float]]:
        """Environment step and one figure of every episode, in order of their end; nan where it has none."""
        found = self._rows(f'SELECT env_step, "{column}" FROM episodes ORDER BY env_step, copy')
        return [(step, _or_nan(figure)) for step, figure in found]

    def costs(self) -> list[list[Cost]]:
        """What was charged for every episode, cost by cost, in order of their end; nan where it has none."""
        return [_read(costs) for (costs,) in self._rows("SELECT costs FROM episodes ORDER BY env_step, copy")]

    def measures(self, *, evaluated: bool) -> dict[str, float | None]:
        """Means of the world's own metrics over the last evaluation, or over all episodes; None where a fault ended one.

        Empty where the world has none, no episode ended, or an older version recorded the run.
        """
        if not self._database.has("episodes", "measures"):
            return {}
        latest = "(SELECT round, at_end FROM evaluations ORDER BY round DESC, at_end DESC LIMIT 1)"
        where = f"evaluations WHERE (round, at_end) = {latest}" if evaluated else "episodes"
        rows = self._rows(f"SELECT measures FROM {where}")
        found = [json.loads(measures) for (measures,) in rows]
        names = found[0] if found else ()
        return {name: _number(float(np.mean([_or_nan(measures[name]) for measures in found]))) for name in names}

    def costs_at_end(self, round_: int) -> list[list[Cost]]:
        """The same of the episodes of the evaluation at the end of the policies after a round; [] if there was none."""
        found = self._rows(f"SELECT costs FROM evaluations WHERE round = {round_} AND at_end ORDER BY copy")
        return [_read(costs) for (costs,) in found]

    def by_round(self, metric: str) -> list[float]:
        """A metric of nodes as a mean over those that reported it, round by round; rounds without it are left out."""
        found = self._rows(f"SELECT avg({metric_in_sql(metric)}) FROM rounds GROUP BY round")
        return [float(mean) for (mean,) in found if mean is not None]

    def by_agent(self, metric: str) -> dict[int, float]:
        """A metric of each agent as a mean over the last tenth of the rounds; agents without it are left out."""
        before = "SELECT max(round) - max(1, (max(round) + 1) / 10) FROM rounds"
        found = self._rows(f"SELECT agent, avg({metric_in_sql(metric)}) FROM rounds WHERE round > ({before}) GROUP BY agent")
        return {int(agent): float(mean) for agent, mean in found if mean is not None}

    def evaluations(self) -> dict[tuple[int, bool], list[tuple[float, float]]]:
        """Return and cost of every episode of the evaluations, nan where a fault ended it.

        Returns:
            By the round that they follow, and whether they were at the end.
        """
        found: dict[tuple[int, bool], list[tuple[float, float]]] = {}
        for round_, at_end, ret, cost in self._rows(
            'SELECT round, at_end, "return", cost FROM evaluations ORDER BY round, at_end, copy'
        ):
            found.setdefault((round_, bool(at_end)), []).append((_or_nan(ret), _or_nan(cost)))
        return found

    def by_kind(self) -> list[Row]:
        """The ledger summed over rounds and links: `round`, `src` and `dst` say nothing."""
        sums = ", ".join(f"sum({name})" for name in Row._fields[5:])
        found = self._rows(f"SELECT 0, plane, '', '', kind, {sums} FROM traffic GROUP BY plane, kind ORDER BY 2, 5")
        return [Row(*row) for row in found]

    def traffic(self) -> list[Row]:
        """The ledger, in key order."""
        names = ", ".join(Row._fields)
        rows = self._rows(f"SELECT {names} FROM traffic ORDER BY round, plane, src, dst, kind")
        return [Row(*row) for row in rows]

    def imbalance(self, gone: Iterable[int] = ()) -> str | None:
        """Where the ledger does not balance over the whole run, leaving out links of agents that died; None if it does."""
        left_out = {str(agent) for agent in gone}
        return imbalance(row for row in self.traffic() if not {row.src, row.dst} & left_out)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._database.query(sql)[1]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
