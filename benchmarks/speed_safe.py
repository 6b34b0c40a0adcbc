"""What safety costs in speed: `python benchmarks/speed_safe.py`.

Two comparisons at the settings of `throughput.py`, each pair of runs one after the other and in turns, so that whatever else
the machine does falls on both alike; every turn gives a ratio of environment steps per second, and the median counts:

- MAFOCOPS to MACPO by the number of agents on Safe HalfCheetah and Safe Ant, with the published ratio beside it (Zhao et al.,
NeurIPS 2023, frames per second of the two; theirs is the speed of one process and of another MACPO, with 40 steps a round);
- Scal-MAPPO-L (κ = 1) to MAPPO-L on Safe Ant 4x2: what the ball's scopes save or cost.

CPU seconds are those of all agents' updates of one round, measured alone in this process (`throughput.learning_alone`): they
depend less on what else runs.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass
from statistics import median

from rich.console import Console
from rich.table import Table
from throughput import NETWORKS, SETTINGS, WARM_UP_ROUNDS, learning_alone, seconds_per_round

from coordinator.records.plan import Plan, plan
from scenarios.loading import load

STEPS_PER_ROUND = 10_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two algorithms on one task.

    Attributes:
        scenario: The task.
        partition: How the robot is dealt to agents.
        first: Whose rate is divided by
        second: this one's.
        published: The same ratio in the papers, if there is one.
    """

    scenario: str
    partition: str
    first: str
    second: str
    published: float | None = None


PAIRS = (
    Pair("safe_halfcheetah_6x1", "2x3", "mafocops", "macpo", 340 / 298),
    Pair("safe_halfcheetah_6x1", "3x2", "mafocops", "macpo", 229 / 192),
    Pair("safe_halfcheetah_6x1", "6x1", "mafocops", "macpo", 162 / 106),
    Pair("safe_ant_4x2", "2x4", "mafocops", "macpo", 270 / 218),
    Pair("safe_ant_4x2", "4x2", "mafocops", "macpo", 160 / 130),
    Pair("safe_ant_4x2", "8x1", "mafocops", "macpo", 115 / 73),
    Pair("safe_ant_4x2", "4x2", "scal_mappo_l", "mappo_l"),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a pair.

    Attributes:
        task: Robot and partition.
        agents: n.
        first: One algorithm.
        second: The other.
        first_rate: Environment steps per second, median over the turns.
        second_rate: The other's.
        ratios: First to second, of every turn.
        cpu_ratio: Second to first, of the CPU seconds of a round's updates.
        published: The papers' ratio of rates.
    """

    task: str
    agents: int
    first: str
    second: str
    first_rate: float
    second_rate: float
    ratios: list[float]
    cpu_ratio: float
    published: float | None


def prepared(pair: Pair, algorithm: str, network: str, rounds: int) -> Plan:
    """The run of one of the two."""
    budget = f"budget.env_steps={(rounds + WARM_UP_ROUNDS) * STEPS_PER_ROUND}"
    task = (f"env.partition={pair.partition}", f"algorithm.name={algorithm}", budget, "kappa=1", "record.tensorboard=false")
    return plan(load(pair.scenario, [*SETTINGS, *NETWORKS[network], *task]))


def measure(pair: Pair, network: str, rounds: int, turns: int) -> Figures:
    """All figures of a pair."""
    first, second = (prepared(pair, name, network, rounds) for name in (pair.first, pair.second))
    rates: dict[str, list[float]] = {pair.first: [], pair.second: []}
    for turn in range(turns):
        both = [(pair.first, first), (pair.second, second)]
        for name, ready in both if turn % 2 == 0 else both[::-1]:
            rates[name].append(STEPS_PER_ROUND / seconds_per_round(ready, learns=True))
    _, first_cpu_s = learning_alone(first, repeats=1)
    _, second_cpu_s = learning_alone(second, repeats=1)
    return Figures(
        task=f"{first.scenario.env.name} {pair.partition}",
        agents=first.spec.n_agents,
        first=pair.first,
        second=pair.second,
        first_rate=median(rates[pair.first]),
        second_rate=median(rates[pair.second]),
        ratios=[mine / other for mine, other in zip(rates[pair.first], rates[pair.second], strict=True)],
        cpu_ratio=second_cpu_s / first_cpu_s,
        published=pair.published,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="runs of each algorithm and task (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds measured per run (default %(default)s)")
    parser.add_argument("--network", choices=list(NETWORKS), default="2 x 128, LayerNorm", help="(default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    console = Console(stderr=True)
    found = []
    for pair in PAIRS:
        console.print(f"{pair.first} / {pair.second}, {pair.scenario} {pair.partition}:", end=" ", highlight=False)
        found.append(measure(pair, given.network, given.rounds, given.turns))
        told = f"{median(found[-1].ratios):.2f}, by CPU seconds of updates {found[-1].cpu_ratio:.2f}"
        console.print(told, highlight=False)
    if given.json:
        print(json.dumps([asdict(figures) for figures in found]))
        return
    title = f"environment steps per second, {len(os.sched_getaffinity(0))} cores, {given.network}, {given.turns} turns"
    table = Table(title=title)
    for heading in ("task", "n", "algorithms", "rates", "ratio: median", "least", "greatest", "of CPU s", "published"):
        table.add_column(heading, justify="left" if heading in ("task", "algorithms") else "right")
    for f in found:
        ratios = (f"{each:.2f}" for each in (median(f.ratios), min(f.ratios), max(f.ratios), f.cpu_ratio))
        published = "–" if f.published is None else f"{f.published:.2f}"
        rates = f"{f.first_rate:,.0f} / {f.second_rate:,.0f}"
        table.add_row(f.task, str(f.agents), f"{f.first} / {f.second}", rates, *ratios, published)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
