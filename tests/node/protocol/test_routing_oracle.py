"""Routes worked out from shared, bounded trees are those of a plain search from every origin; and they cost what they reach."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import networkx as nx
import pytest

from node.protocol import routing as module
from node.protocol import turns
from node.protocol.routing import AgentRouting
from scenarios.kinds import Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.graph import neighbourhood
from topology.graph.neighbourhood import audiences, visible
from topology.graph.routes import NO_ROUTES, Routes, answers, routes

# ------------------------------------------------------------------ the oracle: every tree by itself, over the whole graph


def ways(graph: nx.Graph, origin: int) -> dict[int, list[int]]:
    """From the origin to every node: at each step back the lowest id that is nearer."""
    hops = nx.single_source_shortest_path_length(graph, origin)
    found = {origin: [origin]}
    for node in sorted(hops, key=lambda j: (hops[j], j)):
        if node != origin:
            found[node] = [*found[min(p for p in graph[node] if hops[p] == hops[node] - 1)], node]
    return found


def plain_routes(
    graph: nx.Graph, agent: int, needed_by: Sequence[Sequence[int]], *, direct: bool, order: Sequence[int] | None = None
) -> Routes:
    awaited, uses, next_hops, hops_left, addressed, via = set(), set(), {}, {}, set(), {}
    outgoing: dict[int, list[tuple[int, int]]] = {}
    for origin, audience in enumerate(needed_by):
        if not audience:
            continue
        to = {member: [origin, member] for member in audience} if direct else ways(graph, origin)
        crossed = {pair for member in audience for pair in itertools.pairwise(to[member])}
        mine = tuple(sorted(below for above, below in crossed if above == agent))
        if agent != origin and not mine and agent not in audience:
            continue
        depth = len(to[agent]) - 1 if agent != origin else 0
        if mine:
            next_hops[origin] = mine
            for child in mine:
                outgoing.setdefault(child, []).append((depth if order is None else order.index(origin), origin))
                if child in audience:
                    addressed.add((origin, child))
        if agent != origin:
            awaited.add(origin)
            via[origin] = frozenset(to[agent][:-1])
        if agent in audience:
            uses.add(origin)
        hops_left[origin] = max(len(to[member]) for member in audience) - 1 - depth
    return made(
        awaited, uses, next_hops, hops_left, addressed, {to: [o for _, o in sorted(all_)] for to, all_ in outgoing.items()}, via
    )


def plain_answers(graph: nx.Graph, agent: int, root: int) -> Routes:
    awaited, next_hops, hops_left, addressed, via = set(), {}, {}, set(), {}
    outgoing: dict[int, list[int]] = {}
    for addressee, way in sorted(ways(graph, root).items()):
        if addressee == root or agent not in way:
            continue
        place = way.index(agent)
        hops_left[addressee] = len(way) - 1 - place
        if agent != root:
            awaited.add(addressee)
            via[addressee] = frozenset(way[:place])
        if agent != addressee:
            next_hops[addressee] = (way[place + 1],)
            outgoing.setdefault(way[place + 1], []).append(addressee)
            if way[place + 1] == addressee:
                addressed.add((addressee, addressee))
    return made(awaited, {agent} & awaited, next_hops, hops_left, addressed, outgoing, via)


def made(
    awaited: Iterable[int], uses: Iterable[int], next_hops: Any, hops_left: Any, addressed: Any, outgoing: Any, via: Any
) -> Routes:
    return Routes(
        awaited=frozenset(awaited),
        uses=frozenset(uses),
        next_hops=next_hops,
        hops_left=hops_left,
        addressed=frozenset(addressed),
        outgoing=tuple((to, tuple(outgoing[to])) for to in sorted(outgoing)),
        via=via,
    )


# ------------------------------------------------------------------ many graphs


def graphs(seed: int) -> list[nx.Graph]:
    """Sparse, dense, with hubs, with ties between shortest paths; ids shuffled, so that the lowest id is anywhere."""
    drawn = [
        nx.connected_watts_strogatz_graph(12, 4, 0.3, seed=seed),
        nx.barabasi_albert_graph(14, 2, seed=seed),
        nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 4)),
        nx.random_labeled_tree(11, seed=seed),
        nx.complete_graph(6),
        nx.cycle_graph(9),
        nx.empty_graph(1),
    ]
    shuffled = []
    for graph in drawn:
        ids = list(nx.utils.create_random_state(seed).permutation(len(graph)))
        shuffled.append(nx.relabel_nodes(graph, dict(enumerate(map(int, ids)))))
    return shuffled


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_routes_are_those_of_a_plain_search(seed: int, direct: bool) -> None:
    for graph in graphs(seed):
        n = len(graph)
        rng = nx.utils.create_random_state(seed)
        order = [int(i) for i in rng.permutation(n)]
        some: Sequence[Sequence[int]] = tuple(
            tuple(sorted(int(i) for i in range(n) if i != j and rng.random() < 0.2)) for j in range(n)
        )
        needs = [audiences(visible(graph, k, "hops")) for k in (0, 1, 2, n)] + [
            audiences(visible(graph, k, "agents")) for k in (1, 3)
        ]
        for needed_by in [*needs, some]:
            for agent in range(0, n, 2):
                for by in (None, order):
                    found = routes(graph, agent, needed_by, direct=direct, order=by)
                    assert found == plain_routes(graph, agent, needed_by, direct=direct, order=by)


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_those_of_a_plain_search(seed: int) -> None:
    for graph in graphs(seed):
        for root in range(0, len(graph), 3):
            for agent in range(len(graph)):
                assert answers(graph, agent, root) == plain_answers(graph, agent, root)


SETTINGS: list[dict[str, Any]] = [
    {"kappa": 0},
    {"kappa": 2, "algorithm": {"factor": "khop", "order": "random", "reward": "khop_mean"}},
    {"kappa": 3, "kappa_unit": "agents", "algorithm": {"name": "coppo"}},
    {"algorithm": {"name": "a2po"}},
    {"algorithm": {"name": "mappo_l", "actor_scope": "khop"}},
    {"algorithm": {"name": "alternating_ppo"}},
    {"algorithm": {"name": "ma2ql", "off_policy": {"turn_rounds": 2}}},
    {"algorithm": {"name": "mappo", "critic_scope": "central"}, "central": {"at": 0}},
    {"algorithm": {"name": "mappo", "critic_scope": "central"}},
]


def deployed(graph: nx.Graph, critic_edges: tuple[int, ...] = ()) -> Deployment:
    n = len(graph)
    edges = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))
    return Deployment(obs_dims=(1,) * n, act_dims=(1,) * n, cost_limits=(), dt=1.0, edges=edges, critic_edges=critic_edges)


@pytest.mark.parametrize("routing", ["relay", "direct"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_agenda_has_the_routes_of_a_plain_search_in_every_scope(setting: dict[str, Any], routing: str) -> None:
    central = setting.get("algorithm", {}).get("critic_scope") == "central"
    if central and routing == "direct":
        pytest.skip("a central critic is reached along edges")
    scenario = Scenario.model_validate({**setting, "routing": routing})
    for graph in graphs(7)[::2]:
        n = len(graph)
        deployment = deployed(graph, ((0,) if scenario.central.at == 0 else tuple(range(n))) if central else ())
        everybody = [AgentRouting(scenario, deployment, i) for i in range(n)]
        for one in everybody:
            if scenario.algorithm.recipe.is_ranked:
                one.rank(1, {i: (7 * i) % 5 for i in range(n)})
        for (i, one), round_ in itertools.product(enumerate(everybody), range(3)):
            for kind, who in one._needs.receivers.items():
                found = one.routes(kind, round_)
                if central and kind in (Kind.BOOTSTRAP, Kind.JOINT):
                    assert found == plain_routes(deployment.wires(), i, [(n,)] * n, direct=False)
                elif central and kind is Kind.ADVANTAGE:
                    assert found == plain_answers(deployment.wires(), i, n)
                else:
                    needed_by, order = in_round(one, kind, round_, who, scenario)
                    assert found == plain_routes(graph, i, needed_by, direct=routing == "direct", order=order)


def in_round(
    one: AgentRouting, kind: Kind, round_: int, who: Sequence[Sequence[int]], scenario: Scenario
) -> tuple[Sequence[Sequence[int]], Sequence[int] | None]:
    recipe, n = scenario.algorithm.recipe, len(who)
    rounds = scenario.algorithm.turn_rounds
    now = turns.holder(round_, n, rounds)
    if kind is Kind.RATIO and any(who):
        order = one.order(round_)
        return [[i for i in who[j] if order.index(i) > order.index(j)] for j in range(n)], order
    if kind is Kind.TOKEN and recipe.order == "alternating":
        return [who[j] if j == now and (round_ + 1) % rounds == 0 else () for j in range(n)], None
    if kind in (Kind.BOOTSTRAP, Kind.REWARD) and recipe.order == "alternating":
        return [[i for i in audience if i == now] for audience in who], None
    return who, None


# ------------------------------------------------------------------ what it costs


@pytest.mark.parametrize("setting", [{}, {"kappa": 3, "algorithm": {"factor": "khop", "reward": "khop_mean"}}], ids=str)
@pytest.mark.parametrize("routing", ["relay", "direct"])
def test_with_a_fixed_radius_the_set_up_of_all_agents_of_a_process_costs_in_proportion_to_their_number(
    setting: dict[str, Any], routing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = 0
    search = neighbourhood._search

    def counting(*args: Any) -> dict[int, int]:
        nonlocal found
        hops = search(*args)
        found += len(hops)
        return hops

    monkeypatch.setattr(neighbourhood, "_search", counting)
    scenario = Scenario.model_validate({**setting, "routing": routing})
    cost = {}
    for n in (64, 256):
        module._needs.cache_clear()
        found = 0
        deployment = deployed(nx.cycle_graph(n))
        parts = [AgentRouting(scenario, deployment, i).routes(Kind.STATE, 0) for i in range(n)]
        assert all(part != NO_ROUTES for part in parts)
        cost[n] = found
    assert cost[256] <= 4.01 * cost[64]  # before: 64 times as many
    assert cost[256] < 256 * 50
