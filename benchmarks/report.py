"""How long `kappahop report` takes, and how large its page is: `python benchmarks/report.py`.

Folders of runs are written without running anything: a sweep of 5 graphs x 4 κ x 5 seeds of a ring of eight robot parts
with costs, 1 000 rounds each, with the rows that such a run leaves of every round: figures and ages of each agent, an
episode of each of ten copies, and traffic of every link and kind. Numbers are drawn at random; how many there are is what
takes time. The report is then the command as a person types it, start-up included.
"""

import argparse
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kappahop
from benchmarks.runs import reading
from coordinator.records.database import Recorder
from coordinator.records.plan import Plan, make_run_dir, plan
from coordinator.records.run_sqlite import DATABASE
from scenarios.loading import load
from topology.graph.neighbourhood import ball
from topology.wire.ledger import Row

GRAPHS = ("line", "ring", "star", "complete", "grid")
KAPPAS = (0, 1, 2, 3)
KINDS = ("STATE", "BOOTSTRAP")
COPIES, STEPS = 10, 100


def main() -> None:
    """Write the runs, report them and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs per cell, of 20 cells (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=1000, help="rounds per run (default %(default)s)")
    parser.add_argument("--keep", type=Path, help="write the runs here and keep them; runs that are here are used")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.keep or Path(folder)
        for kind, kappa, seed in itertools.product(GRAPHS, KAPPAS, range(arguments.seeds)):
            run_dir = root / f"{kind}-{kappa}-{seed}"
            if not run_dir.exists():
                write(run_dir, kind, kappa, seed, arguments.rounds)
        stored = sum(path.stat().st_size for path in root.rglob(DATABASE))
        out = Path(folder) / "report.html"
        took = reading(lambda: kappahop.report(root, out=out))
        print(
            f"{len(list(root.rglob(DATABASE)))} runs of {arguments.rounds} rounds, {stored / 1e6:.0f} MB of databases: "
            f"{took.wall_s:.1f} s, of them {took.cpu_s:.1f} s of CPU; {out.stat().st_size / 1e6:.2f} MB of page"
        )


def write(run_dir: Path, kind: str, kappa: int, seed: int, n_rounds: int) -> None:
    """A run's folder, as if it had been run."""
    words = [f"topology.kind={kind}", f"kappa={kappa}", f"seed={seed}", "env.partition=8x1", f"env.num_envs={COPIES}"]
    words += ["network.preset=uav-mesh", f"rollout.steps={STEPS}", f"budget.env_steps={n_rounds * COPIES * STEPS}"]
    ready = plan(load("safe_ant_8x1", words))
    make_run_dir(run_dir, ready)
    Recorder(run_dir, env_steps_per_round=COPIES * STEPS).close()
    draw = np.random.default_rng(seed)
    with sqlite3.connect(run_dir / DATABASE) as database:
        for table, rows in tables(ready, n_rounds, draw):
            marks = ", ".join("?" * len(rows[0]))
            database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    database.close()


def tables(ready: Plan, n_rounds: int, draw: np.random.Generator) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Name and rows of every table."""
    n, kappa, graph = ready.deployment.n_agents, ready.scenario.kappa, ready.deployment.graph()
    steps = n_rounds * COPIES * STEPS
    episodes, rounds, ages, traffic = [], [], [], []
    links = [link for edge in graph.edges for link in (edge, edge[::-1])] if kappa else []
    for place in range(n_rounds):
        end, now = (place + 1) * COPIES * STEPS, 5.0 * (place + 1)
        for copy in range(COPIES):
            ret, cost = kappa + place / 100 + draw.normal(), 50 + 10 * draw.normal()
            episodes.append((place, end, copy, ret, cost, json.dumps([cost]), STEPS, "{}"))
        for agent in range(n):
            rounds.append((place, agent, end, 0.3 * place, now, *draw.normal(size=10).tolist(), '{"late": 1.0}'))
            peers = sorted({*ball(graph, agent, kappa)} - {agent})
            ages += [(place, agent, peer, COPIES * STEPS, 10, draw.exponential(0.05), 0.5) for peer in peers]
            for src, dst, name in ((str(agent), "world", "ACT"), ("world", str(agent), "SENSE")):
                traffic.append(_row(place, "world", src, dst, name, 1000, 0))
        for (src, dst), name in itertools.product(links, KINDS):
            traffic.append(_row(place, "peer", str(src), str(dst), name, 1000 * kappa, int(draw.integers(20))))
    yield "episodes", episodes
    yield "rounds", rounds
    yield "traffic", traffic
    if ages:
        yield "ages", ages
    wire = sum(row[7] for row in traffic if row[1] == "peer")
    ret, cost = np.mean([row[3:5] for row in episodes[-len(episodes) // 10 :]], axis=0).tolist()
    figures: dict[str, Any] = {
        "env_steps": steps, "wall_s": 0.3 * n_rounds, "return_mean": ret, "cost_mean": cost, "wire_bytes": wire,
        "cost_limit": sum(ready.deployment.cost_limits), "bytes_per_agent_step": wire / (n * steps), "delivered_frac": 0.98,
        "virtual_s": 5.0 * n_rounds,
    }  # fmt: skip
    yield "meta", [(name, json.dumps(value)) for name, value in figures.items()]


def _row(place: int, plane: str, src: str, dst: str, kind: str, messages: int, lost: int) -> tuple[Any, ...]:
    return tuple(Row(place, plane, src, dst, kind, messages, 40 * messages, 65 * messages, 0, messages - lost, lost, lost))


if __name__ == "__main__":
    main()
