"""Who needs what of whom: an agent's scopes and, from them, its routes per kind of message and round.

Everything here follows from the scenario, the graph and the shared seed, so every node computes it alike and nothing of
it is sent.
"""

from collections.abc import Sequence

from node.seeds import Purpose, stream
from node.sight import Sight, scope_agents
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.neighbourhood import audiences, visible
from topology.routes import NOBODY, Routes, routes
from topology.wire import Kind

Audiences = Sequence[Sequence[int]]


class Agenda:
    """One agent's scopes, order and routes.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: This agent.

    Attributes:
        visible: Per agent, the agents within κ of it, itself included, ascending.
        actor_agents: Agents whose blocks this agent's actor takes.
        critic_agents: Agents whose blocks its critics take.
        sight: Layout of all blocks it takes.
    """

    def __init__(self, scenario: Scenario, deployment: Deployment, agent: int) -> None:
        self._seed = scenario.seed
        self._direct = scenario.routing == "direct"
        self._graph = deployment.graph()
        self._agent = agent
        self._n = n = deployment.n_agents
        self._recipe = recipe = scenario.algorithm.recipe
        self._takes_turns = recipe.order == "alternating" and n > 1
        self._turn_rounds = scenario.algorithm.off_policy.turn_rounds
        self.visible = visible(self._graph, scenario.kappa, scenario.kappa_unit)
        actor = [scope_agents(recipe.actor_scope, i, self.visible[i], n) for i in range(n)]
        critic = [scope_agents(recipe.critic_scope, i, self.visible[i], n) for i in range(n)]
        sights = [sorted({*actor[i], *critic[i]}) for i in range(n)]
        self.actor_agents, self.critic_agents = actor[agent], critic[agent]
        self.sight = Sight.of(sights[agent], deployment.obs_dims)
        nobody: Audiences = [()] * n
        self._audiences: dict[Kind, Audiences] = {
            Kind.STATE: audiences(sights),
            Kind.BOOTSTRAP: audiences(critic),
            Kind.REWARD: audiences(self.visible) if scenario.algorithm.reward == "khop_mean" else nobody,
            Kind.RATIO: {
                "none": nobody,
                "khop": audiences(self.visible),
                "global": [[i for i in range(n) if i != j] for j in range(n)],
            }[recipe.factor],
            Kind.TOKEN: [((j + 1) % n,) for j in range(n)] if self._takes_turns else nobody,
        }
        self._fixed = {kind: self._route(self._audiences[kind]) for kind in (Kind.STATE, Kind.BOOTSTRAP, Kind.REWARD)}

    def routes(self, kind: Kind, round_: int) -> Routes:
        """This agent's part in a kind of message in a round.

        Ratios go only to agents later in the round's order, the token from whom a turn ends to whose turn is next.
        """
        if kind is Kind.TOKEN:
            passes = self.passes_from(round_)
            if passes is None:
                return NOBODY
            return self._route([who if j == passes else () for j, who in enumerate(self._audiences[Kind.TOKEN])])
        if kind is not Kind.RATIO:
            return self._fixed[kind]
        if self._recipe.factor == "none":
            return NOBODY
        order = self.order(round_)
        place = {agent: index for index, agent in enumerate(order)}
        later = [[i for i in audience if place[i] > place[j]] for j, audience in enumerate(self._audiences[Kind.RATIO])]
        return self._route(later, order)

    def order(self, round_: int) -> tuple[int, ...]:
        """The order of updates in a round, the same on every node without a message."""
        if self._recipe.order != "random":
            return tuple(range(self._n))
        return tuple(int(i) for i in stream(self._seed, round_, Purpose.ORDER).permutation(self._n))

    def has_turn(self, round_: int) -> bool:
        """Whether this agent may learn in a round: always, or if agents take turns in its own."""
        return not self._takes_turns or round_ // self._turn_rounds % self._n == self._agent

    def passes_from(self, round_: int) -> int | None:
        """Whose turn ends with a round; None if nobody's does."""
        turn, left = divmod(round_ + 1, self._turn_rounds)
        return (turn - 1) % self._n if self._takes_turns and not left else None

    def hears(self) -> tuple[int, ...]:
        """Whose frames this node accepts: its neighbours, or with direct routing all who may address it."""
        if not self._direct:
            return tuple(sorted(self._graph.neighbors(self._agent)))
        return tuple(j for j in range(self._n) if any(self._agent in who[j] for who in self._audiences.values()))

    def speaks_to(self) -> tuple[int, ...]:
        """Whom this node opens a link to: its neighbours, or with direct routing all whom it may address."""
        if not self._direct:
            return tuple(sorted(self._graph.neighbors(self._agent)))
        return tuple(sorted({i for who in self._audiences.values() for i in who[self._agent]}))

    def _route(self, needed_by: Audiences, order: Sequence[int] | None = None) -> Routes:
        return routes(self._graph, self._agent, needed_by, direct=self._direct, order=order)
