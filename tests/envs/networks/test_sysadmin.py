"""SysAdmin: a step by hand, statuses against their Markov chain, and what controllers come to."""

from itertools import product

import networkx as nx
import numpy as np
import pytest

from envs.interface import Floats
from envs.networks.sysadmin import BASELINES, SysAdmin, SysAdminEnv
from envs.registry import section

RATES = (0.15, 0.2, 0.05)  # of a fault, of its spread, of death


def machines(**settings: object) -> SysAdmin:
    env = section("sysadmin", **{"num_envs": 1, **settings})
    assert isinstance(env, SysAdminEnv)
    world = SysAdmin(env, nx.path_graph(env.n_agents), 0)
    world.reset()
    return world


def choose(world: SysAdmin, *choices: int) -> list[Floats]:
    return [np.full((world.num_envs, 1), choice, np.float32) for choice in choices]


def test_a_job_is_paid_once_and_lost_by_a_reboot_or_with_a_dead_machine() -> None:
    world = machines(agents=5, arrival_prob=0.0, fault_prob=0.0, spread_prob=0.0, reward="local")
    world.status[:], world.job[:] = [0, 0, 1, 2, 2], [2, 2, 2, 2, 0]
    out = world.step(choose(world, 0, 1, 0, 0, 1))
    assert out.reward[:, 0].tolist() == [1, 0, 1, 0, 0]
    assert world.job[0].tolist() == [0, 0, 0, 2, 0]
    assert world.status[0].tolist() == [0, 0, 1, 2, 0]
    assert world.step(choose(world, 0, 0, 0, 0, 0)).reward.sum() == 0


def test_jobs_take_about_twice_as_long_on_faulty_machines_and_stand_still_on_dead_ones() -> None:
    world = machines(agents=3, num_envs=2000, arrival_prob=0.0, fault_prob=0.0, spread_prob=0.0)
    world.status[:], world.job[:] = [0, 1, 2], 1
    took = np.zeros((2000, 3))
    for _ in range(40):
        took += world.job == 1
        world.step(choose(world, 0, 0, 0))
    # the sum of parts of mean 1/4 and 1/8 passes 1 after a little more than 4 and 8 of them, by renewal theory
    variance = np.array([0.25 * 0.75, 0.125 * 0.875]) / 11
    mean = np.array([0.25, 0.125])
    assert took.mean(axis=0)[:2] == pytest.approx(1 / mean + (variance + mean**2) / (2 * mean**2), rel=0.03)
    assert (took[:, 2] == 40).all()


@pytest.mark.parametrize("policy", ["none", "dead", "faulty"])
def test_statuses_of_three_machines_follow_their_markov_chain(policy: str) -> None:
    reboots = {"none": (), "dead": (2,), "faulty": (1, 2)}[policy]
    known = list(product(range(3), repeat=3))
    moves = np.zeros((27, 27))
    for row, before in enumerate(known):
        now = [0 if status in reboots else status for status in before]
        spread = [1 - (1 - RATES[1]) ** sum(other != 0 for j, other in enumerate(now) if j != i) for i in range(3)]  # a triangle
        fault = [1 - (1 - RATES[0]) * (1 - p) for p in spread]
        death = [1 - (1 - RATES[2] * RATES[0]) * (1 - RATES[2] * p) for p in spread]
        for column, after in enumerate(known):
            chance = [{s: 1.0} if s == 2 else {s: 1 - p, s + 1: p} for s, p in zip(now, np.where(now, death, fault), strict=True)]
            moves[row, column] = np.prod([each.get(s, 0.0) for each, s in zip(chance, after, strict=True)])
    at, dead, steps = np.eye(27)[0], 0.0, 40
    for _ in range(steps):
        at = at @ moves
        dead += at @ (np.array(known) == 2).mean(axis=1) / steps
    world = machines(agents=3, num_envs=2000, horizon=steps)
    control = BASELINES[policy](section("sysadmin"), nx.path_graph(3))  # type: ignore[arg-type]
    for _ in range(steps - 1):
        world.step(control(world))
    found = np.array([episode.measures[1] for episode in world.step(control(world)).episodes])
    assert found.mean() == pytest.approx(dead, abs=4 * found.std() / np.sqrt(len(found)))


@pytest.mark.parametrize(
    ("policy", "jobs"), [("random", 0.0041), ("none", 0.0094), ("dead", 0.0198), ("faulty", 0.0721), ("unpaid", 0.0878)]
)
def test_controllers_do_as_many_jobs_as_the_page_says(policy: str, jobs: float) -> None:
    world = machines(num_envs=200)
    control = BASELINES[policy](section("sysadmin"), nx.empty_graph(10))  # type: ignore[arg-type]
    paid = np.mean([world.step(control(world)).reward[0].mean() for _ in range(world.spec.horizon)])
    assert paid == pytest.approx(jobs, rel=0.1)
