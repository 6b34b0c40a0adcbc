"""What an agent sees: layout, scopes, and that far-reaching κ is `global` byte for byte."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.protocol.routing import AgentRouting
from node.protocol.scopes import ObservationScope, scope_agents
from scenarios.recipes import Scope
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.graph.neighbourhood import visible


def filled(observation: ObservationScope, blocks: dict[int, np.ndarray]) -> np.ndarray:
    """A observation as the runtime fills it, whatever the order in which blocks arrive."""
    seen = np.full((len(next(iter(blocks.values()))), observation.width), np.nan, np.float32)
    for agent in reversed(observation.agents):
        seen[:, observation.places[agent]] = blocks[agent]
    return seen


@given(dims=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_blocks_lie_side_by_side_in_ascending_id_whatever_order_they_are_named_in(dims: list[int], data: st.DataObject) -> None:
    agents = data.draw(st.lists(st.integers(0, len(dims) - 1), min_size=1, unique=True))
    observation = ObservationScope.of(agents, dims)
    assert observation.agents == tuple(sorted(agents))
    assert observation.width == sum(dims[agent] for agent in agents)
    blocks = {agent: np.full((2, dims[agent]), agent, np.float32) for agent in agents}
    expected = np.concatenate([blocks[agent] for agent in sorted(agents)], axis=1)
    np.testing.assert_array_equal(filled(observation, blocks), expected)


@given(dims=st.lists(st.integers(1, 5), min_size=2, max_size=8), data=st.data())
def test_columns_take_out_the_blocks_of_a_subset(dims: list[int], data: st.DataObject) -> None:
    observation = ObservationScope.of(range(len(dims)), dims)
    chosen = sorted(data.draw(st.lists(st.integers(0, len(dims) - 1), min_size=1, unique=True)))
    blocks = {
        agent: np.random.default_rng(agent).normal(size=(3, dims[agent])).astype(np.float32) for agent in observation.agents
    }
    taken = filled(observation, blocks)[:, observation.columns(chosen)]
    np.testing.assert_array_equal(taken, np.concatenate([blocks[agent] for agent in chosen], axis=1))


def test_all_columns_are_a_slice_that_copies_nothing() -> None:
    observation = ObservationScope.of((2, 0), (3, 1, 2))
    seen = np.zeros((4, observation.width), np.float32)
    assert np.shares_memory(seen[:, observation.columns((0, 2))], seen)


@pytest.mark.parametrize(("scope", "agents"), [("local", (2,)), ("khop", (1, 2, 3)), ("global", (0, 1, 2, 3, 4))])
def test_scopes_on_a_line(scope: Scope, agents: tuple[int, ...]) -> None:
    assert scope_agents(scope, 2, visible(nx.path_graph(5), 1, "hops")[2], 5) == agents


def routing(agent: int, kappa: int, scope: str) -> AgentRouting:
    deployment = Deployment(
        obs_dims=(3, 1, 2, 4, 2),
        act_dims=(1,) * 5,
        cost_limits=(),
        dt=1.0,
        edges=((0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (1, 3)),
    )
    algorithm = {"name": "scal_mappo_l", "actor_scope": scope, "critic_scope": scope}
    return AgentRouting(Scenario.model_validate({"kappa": kappa, "algorithm": algorithm}), deployment, agent)


@pytest.mark.parametrize("agent", range(5))
def test_kappa_of_the_diameter_sees_what_global_sees_byte_for_byte(agent: int) -> None:
    near, far = routing(agent, 2, "khop"), routing(agent, 2, "global")
    assert near.observation == far.observation
    blocks = {j: np.random.default_rng(j).normal(size=(3, d)).astype(np.float32) for j, d in enumerate((3, 1, 2, 4, 2))}
    for one, other in ((near.actor_agents, far.actor_agents), (near.critic_agents, far.critic_agents)):
        seen, wanted = (filled(a.observation, blocks)[:, a.observation.columns(who)] for a, who in ((near, one), (far, other)))
        assert seen.tobytes() == wanted.tobytes()


def test_kappa_zero_sees_what_local_sees() -> None:
    for agent in range(5):
        assert routing(agent, 0, "khop").observation == routing(agent, 2, "local").observation
