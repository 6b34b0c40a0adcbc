"""The agenda: every node works out for itself the same scopes, orders and routes, and sockets exist where they are needed."""

from typing import Any

import networkx as nx
import pytest

from node.protocol.routing import Agenda
from scenarios.kinds import Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.graph.routes import NOBODY

GRAPHS: "dict[str, nx.Graph]" = {"line": nx.path_graph(5), "ring": nx.cycle_graph(5), "star": nx.star_graph(4)}
KINDS = (Kind.STATE, Kind.BOOTSTRAP, Kind.REWARD, Kind.RATIO)


def agendas(graph: nx.Graph, *, kappa: int = 1, routing: str = "relay", seed: int = 0, **algorithm: Any) -> list[Agenda]:
    scenario = Scenario.model_validate({"kappa": kappa, "routing": routing, "seed": seed, "algorithm": algorithm})
    n = len(graph)
    edges = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))
    deployment = Deployment(obs_dims=tuple(range(1, n + 1)), act_dims=(1,) * n, cost_limits=(), dt=1.0, edges=edges)
    return [Agenda(scenario, deployment, i) for i in range(n)]


@pytest.mark.parametrize("name", GRAPHS)
def test_kappa_of_at_least_the_diameter_gives_what_global_gives(name: str) -> None:
    graph = GRAPHS[name]
    wide = agendas(graph, kappa=nx.diameter(graph) + 1, factor="khop")
    all_ = agendas(graph, actor_scope="global", critic_scope="global", factor="global")
    for a, b in zip(wide, all_, strict=True):
        assert (a.actor_agents, a.critic_agents, a.sight) == (b.actor_agents, b.critic_agents, b.sight)
        assert a.actor_agents == tuple(range(len(graph)))
        for kind in KINDS:
            assert a.routes(kind, 0) == b.routes(kind, 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_scopes_are_self_ball_or_everybody(name: str) -> None:
    for i, agenda in enumerate(agendas(GRAPHS[name], actor_scope="local", critic_scope="khop")):
        assert agenda.actor_agents == (i,)
        assert agenda.critic_agents == agenda.visible[i] == tuple(sorted({i, *GRAPHS[name][i]}))
        assert agenda.routes(Kind.STATE, 0).uses == agenda.routes(Kind.BOOTSTRAP, 0).uses == set(GRAPHS[name][i])


def test_blocks_lie_side_by_side_in_ascending_order_whatever_their_width() -> None:
    agenda = agendas(GRAPHS["ring"])[0]
    assert agenda.sight.places == {0: slice(0, 1), 1: slice(1, 3), 4: slice(3, 8)}
    assert agenda.sight.width == 8


def test_at_kappa_zero_nothing_is_sent_and_no_socket_but_those_of_the_edges_opened() -> None:
    for i, agenda in enumerate(agendas(GRAPHS["line"], kappa=0, factor="khop", reward="khop_mean")):
        for kind in KINDS:
            part = agenda.routes(kind, 0)
            assert not part.awaited
            assert not part.next_hops
        assert agenda.speaks_to() == tuple(GRAPHS["line"][i])
    for agenda in agendas(GRAPHS["line"], kappa=0, routing="direct"):
        assert agenda.speaks_to() == agenda.hears() == ()


@pytest.mark.parametrize("routing", ["relay", "direct"])
@pytest.mark.parametrize("name", GRAPHS)
def test_whom_one_speaks_to_is_who_hears_it_and_routes_use_no_other_link(name: str, routing: str) -> None:
    them = agendas(GRAPHS[name], kappa=2, routing=routing, factor="global", reward="khop_mean", order="random")
    for i, agenda in enumerate(them):
        assert set(agenda.speaks_to()) == {j for j, other in enumerate(them) if i in other.hears()}
        for kind in KINDS:
            for round_ in range(3):
                for hops in agenda.routes(kind, round_).next_hops.values():
                    assert set(hops) <= set(agenda.speaks_to())
    if routing == "relay":
        assert all(agenda.speaks_to() == tuple(sorted(GRAPHS[name][i])) for i, agenda in enumerate(them))


def test_ratios_go_only_to_later_agents_of_the_ball() -> None:
    for round_ in range(4):
        them = agendas(GRAPHS["ring"], factor="khop", order="random")
        order = them[0].order(round_)
        for i, agenda in enumerate(them):
            assert agenda.order(round_) == order
            assert agenda.routes(Kind.RATIO, round_).uses == {j for j in order[: order.index(i)] if j in agenda.visible[i]}


def test_without_a_factor_no_ratio_is_ever_sent() -> None:
    assert all(
        agenda.routes(Kind.RATIO, 3) == NOBODY for agenda in agendas(GRAPHS["ring"], kappa=3, factor="none", order="random")
    )


def test_rewards_are_exchanged_only_where_they_are_learned_from() -> None:
    own, mean = (agendas(GRAPHS["line"], reward=reward)[2] for reward in ("own", "khop_mean"))
    assert not own.routes(Kind.REWARD, 0).uses
    assert mean.routes(Kind.REWARD, 0).uses == {1, 3}


def test_random_orders_differ_by_round_and_seed_and_are_the_same_for_all() -> None:
    orders = {
        (seed, k): {a.order(k) for a in agendas(GRAPHS["ring"], order="random", seed=seed)} for seed in (0, 1) for k in range(5)
    }
    assert all(len(alike) == 1 for alike in orders.values())
    assert len({order for alike in orders.values() for order in alike}) > 5
    assert all(agenda.order(3) == (0, 1, 2, 3, 4) for agenda in agendas(GRAPHS["ring"], order="fixed"))


@pytest.mark.parametrize("routing", ["relay", "direct"])
def test_the_token_goes_from_turn_to_turn_and_one_agent_at_most_has_it(routing: str) -> None:
    them = agendas(GRAPHS["star"], routing=routing, name="ma2ql", off_policy={"turn_rounds": 2})
    for round_ in range(22):
        holders = [i for i, agenda in enumerate(them) if agenda.has_turn(round_)]
        assert holders == [round_ // 2 % 5]
        comes_to = {i for i, agenda in enumerate(them) if agenda.routes(Kind.TOKEN, round_).uses == set(holders)}
        assert comes_to == ({(holders[0] + 1) % 5} if round_ % 2 else set())
        for agenda in them:
            for hops in agenda.routes(Kind.TOKEN, round_).next_hops.values():
                assert set(hops) <= set(agenda.speaks_to())


def test_without_turns_everybody_learns_and_there_is_no_token() -> None:
    for agenda in [*agendas(GRAPHS["line"], name="iql"), *agendas(nx.empty_graph(1), name="ma2ql")]:
        assert all(agenda.has_turn(round_) for round_ in range(4))
        assert all(agenda.routes(Kind.TOKEN, round_) == NOBODY for round_ in range(4))
