"""Recording a run: a SQLite file in WAL mode, which others may read while the run goes on, and sinks of scalars.

Only the coordinator writes. What processes report in any order ends up the same: rows have keys that do not depend on
arrival, and traffic rows of the same key are added up (the sender books what was sent, the receiver what arrived).
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from coordinator.run.sinks import Sink
from topology.planes.control import EpisodeRow, RoundReport
from topology.wire.ledger import Row, imbalance

DATABASE = "run.sqlite"

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
  late INTEGER NOT NULL, in_flight INTEGER NOT NULL, nulls INTEGER NOT NULL,
  PRIMARY KEY (round, plane, src, dst, kind)) WITHOUT ROWID;
CREATE TABLE ages(
  round INTEGER NOT NULL, agent INTEGER NOT NULL, origin INTEGER NOT NULL,
  used INTEGER NOT NULL, missing INTEGER NOT NULL, mean_s REAL NOT NULL, max_s REAL NOT NULL,
  PRIMARY KEY (round, agent, origin)) WITHOUT ROWID;
CREATE TABLE events(wall_s REAL NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, virtual_s REAL, round INTEGER);
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
    """Writer of a run's database, which tells scalars to sinks as well.

    Args:
        run_dir: The run's directory.
        env_steps_per_round: E·T.
        sinks: What is told every scalar; closed with the recorder.
        resumed_after: Round from which the run goes on: what was recorded of later ones is dropped.

    Attributes:
        wall_s: Seconds that the run has taken up to where it goes on.
    """

    def __init__(
        self, run_dir: Path, *, env_steps_per_round: int, sinks: Sequence[Sink] = (), resumed_after: int | None = None
    ) -> None:
        self._database = sqlite3.connect(run_dir / DATABASE)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._per_round = env_steps_per_round
        self._sinks = sinks
        self.wall_s = 0.0
        if resumed_after is None:
            self._database.executescript(_SCHEMA)
        else:
            self._go_back(resumed_after)

    def _go_back(self, round_: int) -> None:
        """Drop what was recorded of later rounds, and of the run's end."""
        for table in ("episodes", "rounds", "traffic", "ages", "events"):
            self._database.execute(f"DELETE FROM {table} WHERE round > ?", (round_,))
        # only at its end does a run tell what of earlier rounds is still on the way
        self._database.execute("UPDATE traffic SET delivered = delivered + in_flight, in_flight = 0 WHERE in_flight > 0")
        self._database.execute("DELETE FROM meta")
        (self.wall_s,) = self._database.execute("SELECT coalesce(max(wall_s), 0.0) FROM rounds").fetchone()
        self._database.commit()

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
            for sink in self._sinks:
                sink.scalars(episode.env_step, {"episode/return": episode.ret, "episode/cost": cost})

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
            self.event(wall_s, report.role, text, virtual_s=virtual_s, round_=report.round)
        self.refusals(wall_s, report.role, report.round, report.refused, report.refusals)
        for sink in self._sinks:
            sink.scalars(env_step, {f"agent {report.agent}/{name}": value for name, value in report.metrics.items()})

    def traffic(self, rows: Iterable[Row]) -> None:
        """Add ledger rows to what is known of their links."""
        self._database.executemany(_ADD_TRAFFIC, rows)

    def refusals(self, wall_s: float, role: str, round_: int, total: int, texts: Iterable[str]) -> None:
        """Keep how many frames a process refused in a round, and the first reasons."""
        if total:
            self.event(wall_s, role, f"refused {total} frames", round_=round_)
        for text in texts:
            self.event(wall_s, role, f"refused: {text}", round_=round_)

    def event(self, wall_s: float, role: str, text: str, *, virtual_s: float | None = None, round_: int | None = None) -> None:
        """Keep something that happened, with its virtual time and its round if it has them."""
        self._database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (wall_s, role, text, virtual_s, round_))

    def commit(self) -> None:
        """Make everything so far visible to readers."""
        self._database.commit()
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """Commit, bring everything into the one file, so that a copy of it is a copy of all, and close."""
        self.commit()
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # closing does so only if no reader is left
        self._database.close()
        for sink in self._sinks:
            sink.close()


def _number(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


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

    def delivered_frac(self, gone: Iterable[int] = ()) -> float | None:
        """Part of the messages between nodes that were delivered, links of agents that died apart; None if there were none."""
        left_out = {str(agent) for agent in gone}
        rows = [row for row in self.traffic() if row.plane != "world" and not {row.src, row.dst} & left_out]
        sent = sum(row.messages for row in rows)
        return sum(row.delivered for row in rows) / sent if sent else None

    def mean_age_s(self) -> float | None:
        """Mean age of the states that agents acted on, over all agents, origins, steps and copies; None without peers."""
        used, aged = self._database.execute("SELECT coalesce(sum(used), 0), sum(used * mean_s) FROM ages").fetchone()
        return aged / used if used else None

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

    def by_kind(self) -> list[Row]:
        """The ledger summed over rounds and links: `round`, `src` and `dst` say nothing."""
        sums = ", ".join(f"sum({name})" for name in Row._fields[5:])
        found = self._database.execute(f"SELECT 0, plane, '', '', kind, {sums} FROM traffic GROUP BY plane, kind ORDER BY 2, 5")
        return [Row(*row) for row in found]

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
