"""Our worlds as PettingZoo environments: PettingZoo's own tests on every one of them, and what only ours promise."""

import warnings
from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.adapters.pettingzoo_out import Parallel
from envs.registry import make, section, spec
from envs.robots.tasks import TASKS
from scenarios.registry import WORLDS
from topology.snapshot import read, write

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # the tests import games by their old names
    from pettingzoo.test import parallel_api_test, parallel_seed_test

HORIZON = 5


def exported(name: str, **settings: Any) -> Parallel:
    if name in TASKS:
        settings["partition"] = next(iter(TASKS[name].partitions))
    env = section(name, num_envs=1, horizon=HORIZON, **settings)
    graph = nx.path_graph(spec(env).n_agents)
    return Parallel(lambda seed: make(env, graph, seed), 0, name)


def drawn(env: Parallel) -> dict[str, Any]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


@pytest.mark.parametrize("name", [name for name in WORLDS.own if name not in ("pettingzoo", "gymnasium")])
def test_passes_the_tests_of_pettingzoo(name: str) -> None:
    env = exported(name)
    parallel_api_test(env, num_cycles=HORIZON + 2)
    env.close()
    parallel_seed_test(lambda: exported(name), num_cycles=1)


def test_a_step_is_that_of_the_world_and_costs_and_limits_are_told() -> None:
    env, world = exported("safe_halfcheetah"), exported("safe_halfcheetah")._world
    seen, _ = env.reset()
    first = following = world.reset()
    assert all(np.array_equal(seen[agent], block[0]) for agent, block in zip(env.agents, first, strict=True))
    for step in range(HORIZON):
        actions = drawn(env)
        live = list(env.agents)
        seen, reward, terminated, truncated, infos = env.step(actions)
        out = world.step([actions[agent][None] for agent in live])
        following = out.obs
        blocks = out.obs if out.final_obs is None else out.final_obs
        for i, agent in enumerate(live):
            assert np.array_equal(seen[agent], blocks[i][0])
            assert reward[agent] == float(out.reward[i, 0])
            assert np.array_equal(infos[agent]["cost"], out.cost[i, 0])
            assert (terminated[agent], truncated[agent]) == (False, step == HORIZON - 1)
    assert env.agents == []
    assert env.cost_limits == world.spec.cost_limits
    assert set(env.graph.edges) == set(world.spec.edges)
    with pytest.raises(ValueError, match="call reset first"):
        env.step({})
    again, _ = env.reset()  # the world has begun its next episode already
    assert np.array_equal(again["agent_0"], following[0][0])


def test_a_snapshot_goes_on_through_a_file(tmp_path: Any) -> None:
    env, other = exported("network_lq", agents=3), exported("network_lq", agents=3)
    env.reset(seed=3)
    env.step(drawn(env))
    write(tmp_path / "snapshot", env.snapshot())
    other.restore(read(tmp_path / "snapshot"))
    for _ in range(HORIZON - 1):
        actions = drawn(env)
        one, two = env.step(actions), other.step(actions)
        assert all(np.array_equal(one[0][agent], two[0][agent]) for agent in one[0])
        assert one[1:4] == two[1:4]
    assert env.agents == other.agents == []
