"""How fast training is, and how much of the machine it turns into learning: `make bench`.

For each task, measured one after the other in this one run:

- world: the environment alone, stepped in this process with random actions, on all cores and (for the efficiency) its
CPU time;
- forwards and updates: one agent's policy and one agent's learning alone in this process, on one core, CPU time;
- rollouts: all processes with all their messages, but no learning;
- training: everything.

    efficiency = (CPU seconds of world + n·forwards + n·updates, each alone) / cores / wall seconds of training

is 1 if processes, messages and waiting cost nothing and all cores are always busy. Machines change their speed while one
measures: so each part alone is measured before and after the training that it is compared with, and of rounds the median
counts. Settings are those of a public single-process implementation, SafePO's MAPPO-L: 10 copies x 1000 steps a round, 5 epochs
of one full batch, networks 128 wide. Its networks have three hidden layers with LayerNorms; lighter ones are measured beside
them. `--other FILE` adds the rate of other code that was measured on this machine, and the ratio
(docs/how-to/compare-speed.md): JSON such as {"halfcheetah 6x1": 242, "ant 4x2": 240}.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from coordinator.records.database import Recorder
from coordinator.records.plan import Plan, make_run_dir, plan
from coordinator.records.run_sqlite import DATABASE
from coordinator.run import supervisor
from envs.registry import make
from node.learners.led import Executor
from node.learners.making import make_learner
from node.numerics.rollout import Rollout
from node.protocol.routing import AgentRouting
from scenarios.loading import load

SETTINGS = (
    "env.num_envs=10",
    "rollout.steps=1000",
    "algorithm.epochs=5",
    "algorithm.minibatches=1",
)
NETWORKS = {
    "3 x 128, LayerNorm": ("algorithm.hidden=[128,128,128]", "algorithm.layer_norm=true", "algorithm.input_norm=layer"),
    "2 x 128, LayerNorm": ("algorithm.hidden=[128,128]", "algorithm.layer_norm=true", "algorithm.input_norm=layer"),
    "2 x 128": ("algorithm.hidden=[128,128]",),
}
TASKS = {"halfcheetah 6x1": ("safe_halfcheetah_6x1",), "ant 4x2": ("safe_ant_4x2", "env.walls=none")}
WARM_UP_ROUNDS = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on one task; CPU seconds are per round, rates are environment steps per second."""

    world_rate: float
    rollout_rate: float
    training_rate: float
    world_cpu_s: float
    forward_cpu_s: float
    update_cpu_s: float
    efficiency: float


def measure(task: Sequence[str], network: str, rounds: int) -> Figures:
    """All figures of one task (a scenario and overrides) with one kind of network, over `rounds` rounds after a warm-up."""
    budget = f"budget.env_steps={(rounds + WARM_UP_ROUNDS) * 10_000}"
    ready = plan(load(task[0], [*task[1:], *SETTINGS, *NETWORKS[network], budget, "record.tensorboard=false"]))
    per_round = ready.scenario.env.num_envs * ready.scenario.rollout.steps
    cores = len(os.sched_getaffinity(0))
    rollout_s = seconds_per_round(ready, learns=False)
    before = *world_alone(ready), *learning_alone(ready)
    training_s = seconds_per_round(ready, learns=True)
    after = *world_alone(ready), *learning_alone(ready)
    world_rate, world_cpu_s, forward_cpu_s, update_cpu_s = (mean(pair) for pair in zip(before, after, strict=True))
    return Figures(
        world_rate=world_rate,
        rollout_rate=per_round / rollout_s,
        training_rate=per_round / training_s,
        world_cpu_s=world_cpu_s,
        forward_cpu_s=forward_cpu_s,
        update_cpu_s=update_cpu_s,
        efficiency=(world_cpu_s + forward_cpu_s + update_cpu_s) / cores / training_s,
    )


def world_alone(ready: Plan) -> tuple[float, float]:
    """Environment steps per second on all cores, and CPU seconds per round on one thread."""
    scenario, spec = ready.scenario, ready.spec
    draw = np.random.default_rng(0)
    actions = [draw.uniform(-1, 1, (50, scenario.env.num_envs, width)).astype(np.float32) for width in spec.act_dims]
    steps = scenario.rollout.steps
    times = []
    for threads in (0, 1):
        env = make(scenario.env.model_copy(update={"threads": threads}), ready.deployment.graph(), 0)
        env.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        for step in range(steps):
            env.step([table[step % 50] for table in actions])
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        env.close()
    return steps * scenario.env.num_envs / times[0][0], times[1][1]


def learning_alone(ready: Plan, repeats: int = 2) -> tuple[float, float]:
    """CPU seconds per round of all agents' forward passes and of all their updates, one agent after the other."""
    torch.set_num_threads(1)
    scenario, spec = ready.scenario, ready.spec
    draw = np.random.default_rng(0)
    forward = update = 0.0
    for agent in range(spec.n_agents):
        routing = AgentRouting(scenario, ready.deployment, agent)
        learner = make_learner(scenario, ready.deployment, agent, routing)
        assert not isinstance(learner, Executor), "an agent that is led learns nothing"
        rollout = Rollout.make(
            scenario.rollout.steps, scenario.env.num_envs, routing.observation.width, spec.act_dims[agent], spec.n_costs
        )
        for array in (rollout.observation, rollout.reward, rollout.cost, rollout.action):
            array[:] = draw.standard_normal(array.shape)
        rollout.truncated[-1] = True  # where no episode ends no cost is known, and MACPO would not look at costs
        rollout.cut_observation = rollout.observation[-1]
        learner.begin_round(0)
        for repeat in range(1 + repeats):
            began = time.process_time()
            for step, observation in enumerate(rollout.observation):
                learner.act(step, observation)
            acted = time.process_time()
            for _ in learner.learn_values(repeat, rollout, rollout.reward):
                pass
            for _ in learner.learn_policy(rollout, []):
                pass
            learner.end_round(rollout)
            if repeat:
                forward += (acted - began) / repeats
                update += (time.process_time() - acted) / repeats
    return forward, update


def seconds_per_round(ready: Plan, *, learns: bool) -> float:
    """Wall seconds of the median round of a real run, the first round left out."""
    ready = Plan(ready.scenario, ready.spec, ready.deployment.model_copy(update={"learns": learns}))
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        make_run_dir(run_dir, ready)
        recorder = Recorder(run_dir, env_steps_per_round=1)
        outcome = supervisor.run(ready, run_dir, recorder, lambda report: None)
        recorder.close()
        if outcome.error is not None:
            sys.exit(f"throughput: {outcome.error}")
        ends = [row[0] for row in sqlite3.connect(run_dir / DATABASE).execute("SELECT max(wall_s) FROM rounds GROUP BY round")]
    return median(later - earlier for earlier, later in pairwise(ends[WARM_UP_ROUNDS - 1 :]))


def rates_of(file: Path) -> dict[str, float]:
    """Rates of other code, by task.

    Raises:
        SystemExit: the file holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rates = {str(task): float(rate) for task, rate in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        sys.exit(f"--other: {file}: {error}")
    if unknown := rates.keys() - TASKS.keys() or [task for task, rate in rates.items() if not 0 < rate < float("inf")]:
        sys.exit(f"--other: {file}: got {', '.join(sorted(unknown))}; expected positive rates of {', '.join(TASKS)}")
    return rates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="rounds measured per run (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--other", type=Path, metavar="FILE", help="JSON: environment steps per second of other code, by task")
    arguments = parser.parse_args()
    others = {} if arguments.other is None else rates_of(arguments.other)
    found = {(task, network): measure(words, network, arguments.rounds) for task, words in TASKS.items() for network in NETWORKS}
    if arguments.json:
        print(json.dumps([{"task": task, "network": network} | asdict(f) for (task, network), f in found.items()]))
        return
    table = Table(title=f"environment steps per second, {len(os.sched_getaffinity(0))} cores")
    parts = Table(title="CPU seconds per round of 10 000 steps, each part alone")
    for heading in (
        "task",
        "networks",
        "world",
        "rollouts",
        "training",
        "efficiency",
        *(("other code", "ratio") if others else ()),
    ):
        table.add_column(heading, justify="left" if heading in ("task", "networks") else "right")
    for heading in ("task", "networks", "world", "forwards", "updates"):
        parts.add_column(heading, justify="left" if heading in ("task", "networks") else "right")
    for (task, network), f in found.items():
        row = [f"{f.world_rate:,.0f}", f"{f.rollout_rate:,.0f}", f"{f.training_rate:,.0f}", f"{f.efficiency:.2f}"]
        if other := others.get(task):
            row += [f"{other:,.0f}", f"{f.training_rate / other:.1f}"]
        table.add_row(task, network, *row)
        parts.add_row(task, network, f"{f.world_cpu_s:.2f}", f"{f.forward_cpu_s:.2f}", f"{f.update_cpu_s:.2f}")
    console = Console(width=110)
    console.print(table)
    console.print(parts)


if __name__ == "__main__":
    main()
