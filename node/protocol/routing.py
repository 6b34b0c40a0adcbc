"""Who needs what of whom: an agent's scopes and, from them, its routes per kind of message and round.

Everything here follows from the scenario, the graph and the shared seed, so every node computes it alike and nothing of
it is sent; but for the order of updates by scores, which every node computes alike from what all have told all.
"""

from collections.abc import Mapping, Sequence

from node.numerics.seeds import Purpose, stream
from node.protocol import turns
from node.protocol.kinds import ROWS, Audiences, Scopes
from node.protocol.scopes import Sight, scope_agents
from scenarios.kinds import FACTS, PEER_KINDS, Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.graph.neighbourhood import visible
from topology.graph.routes import NOBODY, Routes, answers, routes

CENTRAL = tuple(kind for kind in PEER_KINDS if FACTS[kind].plane == "central" or kind is Kind.BOOTSTRAP)  # with a central critic
_LEARNED_FROM = (Kind.BOOTSTRAP, Kind.REWARD)


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
        self._seed = deployment.seed(scenario)
        self._direct = scenario.routing == "direct"
        self._graph = deployment.graph()
        self._agent = agent
        self._n = n = deployment.n_agents
        self._recipe = recipe = scenario.algorithm.recipe
        self._turn_rounds = scenario.algorithm.turn_rounds
        self.visible = visible(self._graph, scenario.kappa, scenario.kappa_unit)
        actor = [scope_agents(recipe.actor_scope, i, self.visible[i], n) for i in range(n)]
        scopes = [scope_agents(recipe.critic_scope, i, self.visible[i], n) for i in range(n)]
        sights = [sorted({*actor[i], *scopes[i]}) for i in range(n)]
        self.actor_agents, self.critic_agents = actor[agent], scopes[agent]
        self.sight = Sight.of(sights[agent], deployment.obs_dims)
        about = Scopes(scenario.algorithm, self.visible, scopes, sights)
        self._audiences: dict[Kind, Audiences] = {kind: row.receivers(about) for kind, row in ROWS.items()}
        changing = (Kind.RATIO, Kind.TOKEN) if recipe.order != "alternating" else (*_LEARNED_FROM, Kind.TOKEN)
        self._fixed = {kind: self._route(who) for kind, who in self._audiences.items() if kind not in changing}
        self._wires = deployment.wires()
        if (critic := deployment.critic) is not None:
            towards = routes(self._wires, agent, [(critic,)] * n, direct=False)
            back = answers(self._wires, agent, critic)
            self._fixed |= {Kind.BOOTSTRAP: towards, Kind.JOINT: towards, Kind[recipe.answer]: back}
            if scenario.algorithm.share_policy:
                self._fixed |= {Kind.PARAMETERS: towards, Kind.SHARED: back}
        self._ranks: dict[int, tuple[int, ...]] = {}

    def routes(self, kind: Kind, round_: int) -> Routes:
        """This agent's part in a kind of message in a round.

        Ratios go only to agents later in the round's order. Where agents take turns, what is learned from goes only to
        the one that learns, and when its turn ends the token from it to the next.
        """
        if kind in self._fixed:
            return self._fixed[kind]
        who = self._audiences[kind]
        if not any(who):
            return NOBODY
        if kind is Kind.RATIO:
            order = self.order(round_)
            place = {agent: index for index, agent in enumerate(order)}
            return self._route([[i for i in audience if place[i] > place[j]] for j, audience in enumerate(who)], order)
        now = self._holder(round_)
        if kind is Kind.TOKEN:
            if (round_ + 1) % self._turn_rounds:
                return NOBODY
            return self._route([audience if j == now else () for j, audience in enumerate(who)])
        return self._route([[i for i in audience if i == now] for audience in who])

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

    def hears(self) -> tuple[int, ...]:
        """Whose frames this node accepts: its neighbours, or with direct routing all who may address it."""
        if not self._direct:
            return tuple(sorted(self._wires.neighbors(self._agent)))
        return tuple(j for j in range(self._n) if any(self._agent in who[j] for who in self._audiences.values()))

    def speaks_to(self) -> tuple[int, ...]:
        """Whom this node opens a link to: its neighbours, or with direct routing all whom it may address."""
        if not self._direct:
            return tuple(sorted(self._wires.neighbors(self._agent)))
        return tuple(sorted({i for who in self._audiences.values() for i in who[self._agent]}))

    def _takes_turns(self, round_: int) -> bool:
        return self._recipe.order == "alternating" and self._holder(round_) == self._agent

    def _holder(self, round_: int) -> int:
        return turns.holder(round_, self._n, self._turn_rounds)

    def _route(self, needed_by: Audiences, order: Sequence[int] | None = None) -> Routes:
        return routes(self._graph, self._agent, needed_by, direct=self._direct, order=order)
