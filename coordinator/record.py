"""Recording a run: a SQLite file in WAL mode, which others may read while the run goes on, and TensorBoard events.

Only the coordinator writes. What processes report in any order ends up the same: rows have keys that do not depend on
arrival, and traffic rows of the same key are added up (the sender books what was sent, the receiver what arrived).
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Literal

from topology.control import EpisodeRow, RoundReport
from topology.ledger import Row, imbalance

DATABASE = "run.sqlite"
TENSORBOARD = "tensorboard"

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episodes(
  round INTEGER NOT NULL, env_step INTEGER NOT NULL, copy INTEGER NOT NULL,
  return REAL, cost REAL, costs TEXT NOT NULL, length INTEGER NOT NULL,
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
  late INTEGER NOT NULL, in_flight INTEGER NOT NULL,
  PRIMARY KEY (round, plane, src, dst, kind)) WITHOUT ROWID;
CREATE TABLE ages(
  round INTEGER NOT NULL, agent INTEGER NOT NULL, origin INTEGER NOT NULL,
  used INTEGER NOT NULL, missing INTEGER NOT NULL, mean_s REAL NOT NULL, max_s REAL NOT NULL,
  PRIMARY KEY (round, agent, origin)) WITHOUT ROWID;
CREATE TABLE events(wall_s REAL NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, virtual_s REAL);
"""
_ADD_TRAFFIC = f"INSERT INTO traffic VALUES ({', '.join('?' * len(Row._fields))}) ON CONFLICT DO UPDATE SET " + ", ".join(
    f"{name} = {name} + excluded.{name}" for name in Row._fields[5:]
)
_KNOWN = '"return" IS NOT NULL AND cost IS NOT NULL'  # episodes whose figures are numbers
_ROUND_COLUMNS = (
    "value_loss", "advantage_std", "kl", "entropy", "std", "clip_frac", "grad_norm",
    "multiplier_0", "cost_value_loss_0", "episode_cost_0",
)  # fmt: skip


class Recorder:
    """Writer of a run's database and TensorBoard events.

    Args:
        run_dir: The run's directory.
        env_steps_per_round: E·T.
        tensorboard: Whether to write TensorBoard events.
    """

    def __init__(self, run_dir: Path, *, env_steps_per_round: int, tensorboard: bool) -> None:
        self._database = sqlite3.connect(run_dir / DATABASE)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        self._per_round = env_steps_per_round
        self._board = _Board(run_dir / TENSORBOARD) if tensorboard else None

    def meta(self, **values: object) -> None:
        """Keep facts about the run, as JSON by name."""
        self._database.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()]
        )
        self._database.commit()

    def episodes(self, episodes: Iterable[EpisodeRow]) -> None:
        """Keep finished episodes; `cost` is the sum over costs, `costs` lists them. What is no number becomes null."""
        for episode in episodes:
            cost = sum(episode.cost)
            self._database.execute(
                "INSERT INTO episodes VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    episode.round,
                    episode.env_step,
                    episode.copy_index,
                    episode.ret,
                    cost,
                    json.dumps([_number(part) for part in episode.cost]),
                    episode.length,
                ),
            )
            if self._board is not None:
                self._board.scalars(episode.env_step, {"episode/return": episode.ret, "episode/cost": cost})

    def round(self, report: RoundReport, wall_s: float) -> None:
        """Keep a node's figures of a round, and its traffic."""
        env_step = (report.round + 1) * self._per_round
        known = [report.metrics.get(name) for name in _ROUND_COLUMNS]
        more = {name: _number(value) for name, value in report.metrics.items() if name not in _ROUND_COLUMNS}
        self._database.execute(
            f"INSERT INTO rounds VALUES ({', '.join('?' * (len(_ROUND_COLUMNS) + 6))})",
            (report.round, report.agent, env_step, wall_s, report.virtual_s, *known, json.dumps(more)),
        )
        self.traffic(report.traffic)
        self._database.executemany(
            "INSERT INTO ages VALUES (?, ?, ?, ?, ?, ?, ?)", [(report.round, report.agent, *row) for row in report.ages]
        )
        for virtual_s, text in report.incidents:
            self.event(wall_s, report.role, text, virtual_s)
        self.refusals(wall_s, report.role, report.refused, report.refusals)
        if self._board is not None:
            self._board.scalars(env_step, {f"agent {report.agent}/{name}": value for name, value in report.metrics.items()})

    def traffic(self, rows: Iterable[Row]) -> None:
        """Add ledger rows to what is known of their links."""
        self._database.executemany(_ADD_TRAFFIC, rows)

    def refusals(self, wall_s: float, role: str, total: int, texts: Iterable[str]) -> None:
        """Keep how many frames a process refused, and the first reasons."""
        if total:
            self.event(wall_s, role, f"refused {total} frames")
        for text in texts:
            self.event(wall_s, role, f"refused: {text}")

    def event(self, wall_s: float, role: str, text: str, virtual_s: float | None = None) -> None:
        """Keep something that happened, with its virtual time if it has one."""
        self._database.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (wall_s, role, text, virtual_s))

    def commit(self) -> None:
        """Make everything so far visible to readers."""
        self._database.commit()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self._database.close()
        if self._board is not None:
            self._board.close()


def _number(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


class _Board:
    """TensorBoard events without torch."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write named numbers at a step."""
        summary = self._summary(value=[self._summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.add_event(self._event(step=step, summary=summary))

    def flush(self) -> None:
        """Write out what is buffered."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class Results:
    """Reading a run's database, during the run or after it."""

    def __init__(self, run_dir: Path) -> None:
        self._database = sqlite3.connect(f"{(run_dir / DATABASE).absolute().as_uri()}?mode=ro", uri=True)

    def ledger_sha256(self) -> str:
        """Digest of all traffic rows, in key order."""
        sha = hashlib.sha256()
        for row in self.traffic():
            sha.update(json.dumps(row).encode())
        return sha.hexdigest()

    def peer_bytes(self) -> tuple[int, int]:
        """Payload and wire bytes of the peer plane, and of the central one where there is a central critic."""
        payload, wire = self._database.execute(
            "SELECT coalesce(sum(payload_bytes), 0), coalesce(sum(wire_bytes), 0) FROM traffic WHERE plane != 'world'"
        ).fetchone()
        return int(payload), int(wire)

    def virtual_s(self) -> float:
        """Virtual time at which the slowest agent had ended its last round."""
        return float(self._database.execute("SELECT coalesce(max(virtual_s), 0) FROM rounds").fetchone()[0])

    def delivered_frac(self) -> float | None:
        """Part of the messages that `peer_bytes` counts that were delivered; None if there were none."""
        sent, delivered = self._database.execute(
            "SELECT coalesce(sum(messages), 0), sum(delivered) FROM traffic WHERE plane != 'world'"
        ).fetchone()
        return delivered / sent if sent else None

    def mean_age_s(self) -> float | None:
        """Mean age of the states that agents acted on, over all agents, origins, steps and copies; None without peers."""
        used, aged = self._database.execute("SELECT coalesce(sum(used), 0), sum(used * mean_s) FROM ages").fetchone()
        return aged / used if used else None

    def mean(self, first_step: int, last_step: int) -> tuple[float, float, int] | None:
        """Mean return, mean cost and number of the episodes that ended in (first_step, last_step]; None if none did."""
        ret, cost, count = self._database.execute(
            f'SELECT avg("return"), avg(cost), count(*) FROM episodes WHERE {_KNOWN} AND env_step > ? AND env_step <= ?',
            (first_step, last_step),
        ).fetchone()
        return (float(ret), float(cost), int(count)) if count else None

    def quarters(self) -> list[tuple[float, float, int]]:
        """Mean return, mean cost and number of episodes, per quarter of the episodes in order of their end."""
        rows = self._database.execute(f'SELECT "return", cost FROM episodes WHERE {_KNOWN} ORDER BY env_step, copy').fetchall()
        if len(rows) < 4:
            return []
        edges = [len(rows) * i // 4 for i in range(5)]
        parts = [rows[a:b] for a, b in pairwise(edges)]
        return [(sum(r for r, _ in part) / len(part), sum(c for _, c in part) / len(part), len(part)) for part in parts]

    def episodes(self, column: Literal["return", "cost", "length"]) -> list[tuple[int, float]]:
        """Environment step and one figure of every episode, in order of their end."""
        return self._database.execute(
            f'SELECT env_step, "{column}" FROM episodes WHERE {_KNOWN} ORDER BY env_step, copy'
        ).fetchall()

    def by_kind(self) -> list[tuple[str, str, int, int, int]]:
        """Plane, kind, messages, payload bytes and wire bytes, summed over links."""
        return self._database.execute(
            "SELECT plane, kind, sum(messages), sum(payload_bytes), sum(wire_bytes) FROM traffic "
            "GROUP BY plane, kind ORDER BY plane, kind"
        ).fetchall()

    def traffic(self) -> list[Row]:
        """The ledger, in key order."""
        names = ", ".join(Row._fields)
        rows = self._database.execute(f"SELECT {names} FROM traffic ORDER BY round, plane, src, dst, kind")
        return [Row(*row) for row in rows]

    def imbalance(self, gone: Iterable[int] = ()) -> str | None:
        """Where the ledger does not balance over the whole run, leaving out links of agents that died; None if it does."""
        left_out = {str(agent) for agent in gone}
        return imbalance(row for row in self.traffic() if not {row.src, row.dst} & left_out)

    def close(self) -> None:
        """Close the database."""
        self._database.close()
