"""Which agent needs what of which others: an agent's scopes and, from them, its routes per kind of message and round.

Everything here follows from the scenario, the graph and the shared seed, so every node computes it alike and nothing of
it is sent; but for the order of updates by scores, which every node computes alike from what all have told all.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Literal

import networkx as nx

from node.numerics.seeds import Purpose, stream
from node.protocol import turns
from node.protocol.kinds import ROWS, Audiences, Scopes
from node.protocol.scopes import ObservationScope, scope_agents
from scenarios.kinds import FACTS, Kind, peer_kinds
from scenarios.schema import Algorithm, Scenario
from topology.deployment import Deployment
from topology.graph.neighbourhood import visible
from topology.graph.routes import NO_ROUTES, Answering, Routes, Routing

CENTRAL = tuple(kind for kind in peer_kinds() if FACTS[kind].plane == "central" or kind is Kind.BOOTSTRAP)
_LEARNED_FROM = (Kind.BOOTSTRAP, Kind.REWARD)
_RECENT = 8  # moments of which trees are kept: agents of one process may be a round apart, with two or three kinds each


class Needs:
    """What all agents of a run have in common: scopes, and per kind of message which agent needs it of which others.

    In one process all agents share it, so that it is worked out once and not once per agent.

    Args:
        deployment: Sizes and graph.
        algorithm: The scenario's section.
        kappa: From how far away agents receive states.
        kappa_unit: In what.
        direct: Overlay sockets instead of relaying.

    Attributes:
        wires: The topology with the central critic, if there is one.
        visible: Per agent, the agents within κ of it, itself included, ascending.
        actors: Per agent, the agents whose blocks its actor takes.
        critics: Per agent, the agents whose blocks its critics take.
        both: Per agent, the agents whose blocks either takes.
        degrees: Per agent, with how many agents it has an edge.
        receivers: Per kind and agent, the agents that need its message.
    """

    def __init__(
        self, deployment: Deployment, algorithm: Algorithm, *, kappa: int, kappa_unit: Literal["hops", "agents"], direct: bool
    ) -> None:
        self._deployment = deployment
        self._algorithm = algorithm
        self._direct = direct
        self._graph, self.wires = deployment.graph(), deployment.wires()
        recipe, n = algorithm.recipe, deployment.n_agents
        self.visible = visible(self._graph, kappa, kappa_unit)
        self.actors = [scope_agents(recipe.actor_scope, i, self.visible[i], n) for i in range(n)]
        self.critics = [scope_agents(recipe.critic_scope, i, self.visible[i], n) for i in range(n)]
        self.both = [sorted({*self.actors[i], *self.critics[i]}) for i in range(n)]
        neighbours = [sorted(self._graph.neighbors(i)) for i in range(n)]
        self.degrees = [len(agents) for agents in neighbours]
        about = Scopes(algorithm, self.visible, self.critics, self.both, neighbours)
        self.receivers: dict[Kind, Audiences] = {kind: row.receivers(about) for kind, row in ROWS.items()}
        self._recent: dict[tuple[Kind, Hashable], Routing] = {}

    @cached_property
    def fixed(self) -> dict[Kind, Routing | Answering]:
        """The trees of the kinds whose receivers never change."""
        recipe, n = self._algorithm.recipe, self._deployment.n_agents
        changing = (Kind.RATIO, Kind.TOKEN) if recipe.order != "alternating" else (*_LEARNED_FROM, Kind.TOKEN)
        found: dict[Kind, Routing | Answering] = {}
        alike: dict[tuple[tuple[int, ...], ...], Routing] = {}  # kinds with the same receivers share their trees
        for kind, receivers in self.receivers.items():
            if kind not in changing:
                key = tuple(map(tuple, receivers))
                found[kind] = alike[key] = alike.get(key) or self._routing(receivers)
        if (critic := self._deployment.critic) is not None:
            towards = Routing(self.wires, [(critic,)] * n, direct=False)
            back = Answering(self.wires, critic)
            found |= {Kind.BOOTSTRAP: towards, Kind.JOINT: towards, Kind[recipe.answer]: back}
            if self._algorithm.share_policy:
                found |= {Kind.PARAMETERS: towards, Kind.SHARED: back}
        return found

    def of_moment(self, kind: Kind, moment: Hashable, receivers: Callable[[], Audiences]) -> Routing:
        """The trees of a kind whose receivers change from round to round; the last few are kept, for the other agents here."""
        found = self._recent.get((kind, moment))
        if found is None:
            while len(self._recent) >= _RECENT:
                del self._recent[next(iter(self._recent))]
            found = self._recent[kind, moment] = self._routing(receivers())
        return found

    @cached_property
    def addressed_by(self) -> list[list[int]]:
        """Per agent, the agents whose own messages it needs, of whatever kind, ascending."""
        found: list[set[int]] = [set() for _ in self.visible]
        for receivers in self.receivers.values():
            for origin, audience in enumerate(receivers):
                for agent in audience:
                    found[agent].add(origin)
        return [sorted(origins) for origins in found]

    def _routing(self, receivers: Audiences) -> Routing:
        return Routing(self._graph, receivers, direct=self._direct)


_needs = lru_cache(maxsize=2)(Needs)  # those of a run, and of the run or evaluation before it in the same process


def needs_of(scenario: Scenario, deployment: Deployment) -> Needs:
    """What all agents of a run have in common."""
    return _needs(
        deployment,
        scenario.algorithm,
        kappa=scenario.kappa,
        kappa_unit=scenario.kappa_unit,
        direct=scenario.routing == "direct",
    )


class AgentRouting:
    """One agent's scopes, order and routes.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: This agent.

    Attributes:
        visible: Per agent, the agents within κ of it, itself included, ascending.
        actor_agents: Agents whose blocks this agent's actor takes.
        critic_agents: Agents whose blocks its critics take.
        observation: Layout of all blocks it takes.
    """

    def __init__(self, scenario: Scenario, deployment: Deployment, agent: int) -> None:
        self._seed = deployment.seed(scenario)
        self._direct = scenario.routing == "direct"
        self._agent = agent
        self._n = deployment.n_agents
        self._recipe = scenario.algorithm.recipe
        self._turn_rounds = scenario.algorithm.turn_rounds
        self._consensus_every = scenario.algorithm.consensus_every
        self._needs = needs = needs_of(scenario, deployment)
        self.visible = needs.visible
        self.actor_agents, self.critic_agents = needs.actors[agent], needs.critics[agent]
        self.observation = ObservationScope.of(needs.both[agent], deployment.obs_dims)
        parts = {id(routing): routing.part(agent) for routing in needs.fixed.values()}
        self._fixed = {kind: parts[id(routing)] for kind, routing in needs.fixed.items()}
        self._ranks: dict[int, tuple[int, ...]] = {}

    def routes(self, kind: Kind, round_: int) -> Routes:
        """This agent's part in a kind of message in a round.

        Ratios go only to agents later in the round's order. Where agents take turns, what is learned from goes only to
        the one that learns, and when its turn ends the token from it to the next. Neighbours average in some rounds alone.
        """
        if kind is Kind.CONSENSUS and (round_ + 1) % self._consensus_every:
            return NO_ROUTES
        if kind in self._fixed:
            return self._fixed[kind]
        receivers = self._needs.receivers[kind]
        if not any(receivers):
            return NO_ROUTES
        if kind is Kind.RATIO:
            order = self.order(round_)
            return self._needs.of_moment(kind, order, lambda: _later(receivers, order)).part(self._agent, order)
        now = self._holder(round_)
        if kind is not Kind.TOKEN:
            to_holder = self._needs.of_moment(kind, now, lambda: [(now,) if now in audience else () for audience in receivers])
            return to_holder.part(self._agent)
        if (round_ + 1) % self._turn_rounds:
            return NO_ROUTES
        from_holder = self._needs.of_moment(kind, now, lambda: [receivers[j] if j == now else () for j in range(self._n)])
        return from_holder.part(self._agent)

    @property
    def degree(self) -> int:
        """With how many agents this agent has an edge."""
        return self._needs.degrees[self._agent]

    def has_turn(self, round_: int) -> bool:
        """Whether this agent learns in a round."""
        return self._recipe.order != "alternating" or self._holder(round_) == self._agent

    def begins_turn(self, round_: int) -> bool:
        """Whether a turn of this agent begins with a round."""
        return self._takes_turns(round_) and round_ % self._turn_rounds == 0

    def ends_turn(self, round_: int) -> bool:
        """Whether a turn of this agent ends with a round."""
        return self._takes_turns(round_) and (round_ + 1) % self._turn_rounds == 0

    def order(self, round_: int) -> tuple[int, ...]:
        """The order of updates in a round, the same on every node; where it depends on scores, from `rank` on."""
        if self._recipe.order == "random":
            return tuple(int(i) for i in stream(self._seed, round_, Purpose.ORDER).permutation(self._n))
        return self._ranks.get(round_, tuple(range(self._n)))

    def rank(self, round_: int, scores: Mapping[int, float]) -> None:
        """Find the order of updates in a round from every agent's score."""
        self._ranks = {round_: turns.semi_greedy_order(scores, stream(self._seed, round_, Purpose.ORDER))}

    @property
    def wires(self) -> nx.Graph:
        """The topology with the central critic, if there is one; the same object for all agents of a process."""
        return self._needs.wires

    def receives_from(self) -> tuple[int, ...]:
        """The nodes whose frames this node accepts: its neighbours, or with direct routing all that may address it."""
        if not self._direct:
            return tuple(sorted(self._needs.wires.neighbors(self._agent)))
        return tuple(self._needs.addressed_by[self._agent])

    def sends_to(self) -> tuple[int, ...]:
        """The nodes that this node opens a link to: its neighbours, or with direct routing all that it may address."""
        if not self._direct:
            return tuple(sorted(self._needs.wires.neighbors(self._agent)))
        return tuple(sorted({i for receivers in self._needs.receivers.values() for i in receivers[self._agent]}))

    def _takes_turns(self, round_: int) -> bool:
        return self._recipe.order == "alternating" and self._holder(round_) == self._agent

    def _holder(self, round_: int) -> int:
        return turns.holder(round_, self._n, self._turn_rounds)


def _later(receivers: Audiences, order: Sequence[int]) -> Audiences:
    """Of each agent's receivers those that come later in the order than it does."""
    place = {agent: index for index, agent in enumerate(order)}
    return [[i for i in audience if place[i] > place[j]] for j, audience in enumerate(receivers)]
