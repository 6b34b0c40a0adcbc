"""The routing: every node works out for itself the same scopes, orders and routes, and sockets exist where they are needed."""

from typing import Any

import networkx as nx
import pytest

from node.protocol.routing import AgentRouting
from scenarios.kinds import Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.graph.routes import NO_ROUTES

GRAPHS: "dict[str, nx.Graph]" = {"line": nx.path_graph(5), "ring": nx.cycle_graph(5), "star": nx.star_graph(4)}
KINDS = (Kind.STATE, Kind.BOOTSTRAP, Kind.REWARD, Kind.RATIO)


def all_routings(
    graph: nx.Graph, *, kappa: int = 1, routing: str = "relay", seed: int = 0, **algorithm: Any
) -> list[AgentRouting]:
    scenario = Scenario.model_validate({"kappa": kappa, "routing": routing, "seed": seed, "algorithm": algorithm})
    n = len(graph)
    edges = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))
    deployment = Deployment(obs_dims=tuple(range(1, n + 1)), act_dims=(1,) * n, cost_limits=(), dt=1.0, edges=edges)
    return [AgentRouting(scenario, deployment, i) for i in range(n)]


@pytest.mark.parametrize("name", GRAPHS)
def test_kappa_of_at_least_the_diameter_gives_what_global_gives(name: str) -> None:
    graph = GRAPHS[name]
    wide = all_routings(graph, kappa=nx.diameter(graph) + 1, factor="khop")
    all_ = all_routings(graph, actor_scope="global", critic_scope="global", factor="global")
    for a, b in zip(wide, all_, strict=True):
        assert (a.actor_agents, a.critic_agents, a.observation) == (b.actor_agents, b.critic_agents, b.observation)
        assert a.actor_agents == tuple(range(len(graph)))
        for kind in KINDS:
            assert a.routes(kind, 0) == b.routes(kind, 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_scopes_are_self_ball_or_everybody(name: str) -> None:
    for i, mine in enumerate(all_routings(GRAPHS[name], actor_scope="local", critic_scope="khop")):
        assert mine.actor_agents == (i,)
        assert mine.critic_agents == mine.visible[i] == tuple(sorted({i, *GRAPHS[name][i]}))
        assert mine.routes(Kind.STATE, 0).uses == mine.routes(Kind.BOOTSTRAP, 0).uses == set(GRAPHS[name][i])


def test_blocks_lie_side_by_side_in_ascending_order_whatever_their_width() -> None:
    mine = all_routings(GRAPHS["ring"])[0]
    assert mine.observation.places == {0: slice(0, 1), 1: slice(1, 3), 4: slice(3, 8)}
    assert mine.observation.width == 8


def test_at_kappa_zero_nothing_is_sent_and_no_socket_but_those_of_the_edges_opened() -> None:
    for i, mine in enumerate(all_routings(GRAPHS["line"], kappa=0, factor="khop", reward="khop_mean")):
        for kind in KINDS:
            part = mine.routes(kind, 0)
            assert not part.awaited
            assert not part.next_hops
        assert mine.sends_to() == tuple(GRAPHS["line"][i])
    for mine in all_routings(GRAPHS["line"], kappa=0, routing="direct"):
        assert mine.sends_to() == mine.receives_from() == ()


@pytest.mark.parametrize("routing", ["relay", "direct"])
@pytest.mark.parametrize("name", GRAPHS)
def test_whom_one_speaks_to_is_who_hears_it_and_routes_use_no_other_link(name: str, routing: str) -> None:
    them = all_routings(GRAPHS[name], kappa=2, routing=routing, factor="global", reward="khop_mean", order="random")
    for i, mine in enumerate(them):
        assert set(mine.sends_to()) == {j for j, other in enumerate(them) if i in other.receives_from()}
        for kind in KINDS:
            for round_ in range(3):
                for hops in mine.routes(kind, round_).next_hops.values():
                    assert set(hops) <= set(mine.sends_to())
    if routing == "relay":
        assert all(mine.sends_to() == tuple(sorted(GRAPHS[name][i])) for i, mine in enumerate(them))


def test_ratios_go_only_to_later_agents_of_the_ball() -> None:
    for round_ in range(4):
        them = all_routings(GRAPHS["ring"], factor="khop", order="random")
        order = them[0].order(round_)
        for i, mine in enumerate(them):
            assert mine.order(round_) == order
            assert mine.routes(Kind.RATIO, round_).uses == {j for j in order[: order.index(i)] if j in mine.visible[i]}


def test_without_a_factor_no_ratio_is_ever_sent() -> None:
    assert all(
        mine.routes(Kind.RATIO, 3) == NO_ROUTES for mine in all_routings(GRAPHS["ring"], kappa=3, factor="none", order="random")
    )


def test_rewards_are_exchanged_only_where_they_are_learned_from() -> None:
    own, mean = (all_routings(GRAPHS["line"], reward=reward)[2] for reward in ("own", "khop_mean"))
    assert not own.routes(Kind.REWARD, 0).uses
    assert mean.routes(Kind.REWARD, 0).uses == {1, 3}


def test_random_orders_differ_by_round_and_seed_and_are_the_same_for_all() -> None:
    orders = {
        (seed, k): {a.order(k) for a in all_routings(GRAPHS["ring"], order="random", seed=seed)}
        for seed in (0, 1)
        for k in range(5)
    }
    assert all(len(alike) == 1 for alike in orders.values())
    assert len({order for alike in orders.values() for order in alike}) > 5
    assert all(mine.order(3) == (0, 1, 2, 3, 4) for mine in all_routings(GRAPHS["ring"], order="fixed"))


@pytest.mark.parametrize("routing", ["relay", "direct"])
def test_the_token_goes_from_turn_to_turn_and_one_agent_at_most_has_it(routing: str) -> None:
    them = all_routings(GRAPHS["star"], routing=routing, name="ma2ql", off_policy={"turn_rounds": 2})
    for round_ in range(22):
        holders = [i for i, mine in enumerate(them) if mine.has_turn(round_)]
        assert holders == [round_ // 2 % 5]
        comes_to = {i for i, mine in enumerate(them) if mine.routes(Kind.TOKEN, round_).uses == set(holders)}
        assert comes_to == ({(holders[0] + 1) % 5} if round_ % 2 else set())
        for mine in them:
            for hops in mine.routes(Kind.TOKEN, round_).next_hops.values():
                assert set(hops) <= set(mine.sends_to())


def test_without_turns_everybody_learns_and_there_is_no_token() -> None:
    for mine in [*all_routings(GRAPHS["line"], name="iql"), *all_routings(nx.empty_graph(1), name="ma2ql")]:
        assert all(mine.has_turn(round_) for round_ in range(4))
        assert all(mine.routes(Kind.TOKEN, round_) == NO_ROUTES for round_ in range(4))
