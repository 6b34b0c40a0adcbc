"""Which algorithms keep a limit: `python benchmarks/constrained.py`.

`lq_limited`: four linear systems, each of which may spend so much control; the least cost within the limit of any controller
that sees everything is known exactly. Trains HAPPO, which minds no costs, the four algorithms that do, and Scal-MAPPO-L with a
budget that all agents share. Prints for every seed the control spent as a part of the limit (mean over agents, and of the one
that spends most), and what states and controls cost as a multiple of that least, both of the last tenth of the steps,
exploration included. The least is that of an endless run, and for the mean over agents; an episode, which starts from rest, may
cost a little less.

Every row is a command that can be run by itself; what is finished in the folder is kept and not made again. Runs are made in one
process, which gives the same numbers as one process per agent and is faster for small agents.
"""

import argparse
import contextlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs import made
from coordinator.records.database import Results
from coordinator.records.plan import plan
from envs.networks.lq import dynamics, limited_cost, optimal_cost
from scenarios.loading import load

SCENARIO = "lq_limited"
UNSAFE = "happo"
SAFE: dict[str, tuple[str, ...]] = {
    "mappo_l": (),
    "scal_mappo_l": (),
    "macpo": ("algorithm.kl_bound=0.03", "budget.env_steps=32_000"),  # one step a round: a longer one, of fewer
    "mafocops": (),
}
SHARED = "shared"  # a budget that all agents share: neighbours agree on multipliers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ended with.

    Attributes:
        spent: Control of an episode as a part of its limit, mean over agents.
        most: The same of the agent that spends most, over the last tenth of the rounds.
        cost: State and control cost per node and step, as a multiple of the least within the limit.
    """

    spent: float
    most: float
    cost: float


def words(algorithm: str, seed: int) -> list[str]:
    """Scenario and overrides of a run."""
    if algorithm == SHARED:
        return [SCENARIO, "algorithm.constraint_scope=consensus", "--seed", str(seed)]
    return [SCENARIO, f"algorithm.name={algorithm}", *SAFE.get(algorithm, ()), "--seed", str(seed)]


def least_cost() -> tuple[float, float]:
    """What the best controllers cost per node and step: without limit, and within it."""
    scenario = load(SCENARIO)
    lq = scenario.env
    a = dynamics(plan(scenario).deployment.graph(), lq)
    return optimal_cost(a, lq.control_weight, lq.noise_std)[0], limited_cost(a, lq)[0]


def train(algorithm: str, seed: int, root: Path) -> Outcome:
    """What comes of a run made now or before."""
    folder = root / f"{algorithm}-s{seed}"
    printed = made(words(algorithm, seed), folder, in_process=True).metrics
    spec = plan(load(SCENARIO)).spec
    with contextlib.closing(Results(folder)) as results:
        own = results.by_agent("episode_cost_0")
    return Outcome(
        spent=printed["cost_mean"] / spec.cost_limits[0],
        most=max(own.values(), default=float("nan")) / spec.cost_limits[0],
        cost=-printed["return_mean"] / spec.horizon / least_cost()[1],
    )


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each (default 0 1 2)")
    parser.add_argument("--root", type=Path, default=Path("runs/constrained"), help="folder of the runs (default %(default)s)")
    given = parser.parse_args()
    given.root.mkdir(parents=True, exist_ok=True)
    free, within = least_cost()
    print(f"least cost: {free:.3f} without a limit, {within:.3f} within it\n")
    print(
        "| algorithm | spent / limit, by seed | that of the largest spender | cost / least within the limit, by seed | command |"
        "\n|---|---|---|---|---|"
    )
    for algorithm in (UNSAFE, *SAFE, SHARED):
        found = [train(algorithm, seed, given.root) for seed in given.seeds]
        columns = ([outcome.spent for outcome in found], [outcome.most for outcome in found], [outcome.cost for outcome in found])
        told = " | ".join(", ".join(f"{value:.2f}" for value in column) for column in columns)
        print(f"| {algorithm} | {told} | `kappahop run {' '.join(words(algorithm, given.seeds[0]))}` |", flush=True)


if __name__ == "__main__":
    main()
