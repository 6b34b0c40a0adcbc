"""How fast every world without a robot steps by itself: `python benchmarks/worlds.py [NAME ...]`.

Prints environment steps per second of processor time, of 64 copies on one core, with random actions and observations made: no
agents, no messages. Environments of other packages: `python benchmarks/worlds.py pettingzoo --make MODULE:FUNCTION`.
"""

import argparse
import os
import time

import numpy as np

from envs.adapters.settings import ImportedEnv
from envs.interface import Floats, VecEnv
from envs.registry import make, section, spec
from envs.robots.tasks import TASKS
from scenarios.loading import world_settings
from scenarios.registry import WORLDS, allowing_code
from scenarios.schema import Topology
from topology.graph.generators import build

COPIES, SECONDS = 64, 2.0


def random_actions(world: VecEnv, rng: np.random.Generator) -> list[Floats]:
    """One action of each agent in every copy."""
    shape = world.spec
    return [
        (rng.integers(count, size=(COPIES, 1)) if count else rng.uniform(-1.0, 1.0, (COPIES, width))).astype(np.float32)
        for width, count in zip(shape.act_dims, shape.n_discrete, strict=True)
    ]


def steps_per_second(name: str, **settings: str) -> tuple[int, float]:
    """How many agents a world has by default, and its environment steps per second over all copies."""
    env = section(name, num_envs=COPIES, **settings)
    shape = spec(env)
    world = make(env, build(Topology(), shape.n_agents, shape.edges), 0)
    rng = np.random.default_rng(0)
    batches = [random_actions(world, rng) for _ in range(8)]
    world.reset()
    steps, began = 0, time.process_time()
    while (passed := time.process_time() - began) < SECONDS:
        world.step(batches[steps % len(batches)])
        steps += 1
    world.close()
    return shape.n_agents, COPIES * steps / passed


def main() -> None:
    """Print the table."""
    imported = [name for name in WORLDS.own if issubclass(world_settings(name), ImportedEnv)]
    there = [name for name in WORLDS.own if name not in {*TASKS, *imported}]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*there, *imported, []],
                        help=f"of {', '.join(there)} (default: all), or, with --make, {', '.join(imported)}")  # fmt: skip
    parser.add_argument("--make", help="what makes an environment of another package; its code is imported")
    asked = parser.parse_args()
    names = asked.names or there
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # matrix products share the one core
    print("| world | agents | environment steps per processor second |")
    print("|---|---|---|")
    for name in names:
        with allowing_code():
            agents, rate = steps_per_second(name, **({"make": asked.make} if name in imported else {}))
        print(f"| `{name}` | {agents} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
