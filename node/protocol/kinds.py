"""What a kind of message comes to in one deployment: which agents receive it, and how many rows and numbers it has.

The facts that hold everywhere are in `scenarios.kinds`; the two tables name the same kinds. Receivers follow from scopes,
sizes from the deployment; neither needs torch or I/O.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from node.protocol import turns
from node.protocol.scopes import scope_agents
from scenarios.kinds import FACTS, Kind
from scenarios.recipes import CriticScope
from scenarios.schema import Algorithm, Scenario
from topology.deployment import Deployment
from topology.graph.neighbourhood import audiences, visible
from topology.link.treatment import dtype_of
from topology.wire.codec import row_bytes
from topology.wire.frame import DELIVERY_BYTES

Audiences = Sequence[Sequence[int]]
Per = Literal["copy", "cut", "sample"]


@dataclass(frozen=True, slots=True)
class Scopes:
    """What receivers follow from, per agent.

    Attributes:
        algorithm: The scenario's section.
        visible: The agents within κ, itself included, ascending.
        critics: The agents whose states its critics take.
        both: The agents whose states its actor or its critics take.
        neighbours: The agents with which it has an edge.
    """

    algorithm: Algorithm
    visible: Audiences
    critics: Audiences
    both: Audiences
    neighbours: Audiences

    @property
    def no_audience(self) -> Audiences:
        """No receivers, for every agent."""
        return [()] * len(self.visible)

    @property
    def others(self) -> Audiences:
        """All other agents, for every agent."""
        n = len(self.visible)
        return [[i for i in range(n) if i != j] for j in range(n)]

    @property
    def factor(self) -> Audiences:
        """The agents whose advantage an agent's ratios multiply."""
        factor = self.algorithm.recipe.factor
        if factor == "none":
            return self.no_audience
        return audiences(self.visible) if factor == "khop" else self.others


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the size of a message follows from.

    Attributes:
        algorithm: The scenario's section.
        deployment: Widths of observations and actions.
        steps: T, steps of a round.
        copies: E, copies of the world.
        reach: κ and its unit.
    """

    algorithm: Algorithm
    deployment: Deployment
    steps: int
    copies: int
    reach: tuple[int, Literal["hops", "agents"]]

    @property
    def signals(self) -> int:
        """What there are advantages of: the reward, and every cost where the recipe has a constraint."""
        return 1 if self.algorithm.recipe.constraint == "none" else 1 + len(self.deployment.cost_limits)

    @property
    def actor_widths(self) -> tuple[int, ...]:
        """Inputs of every agent's actor."""
        return _widths(self.deployment, self.algorithm.recipe.actor_scope, self.reach)

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Inputs of every agent's critics."""
        return _widths(self.deployment, self.algorithm.recipe.critic_scope, self.reach)

    def samples(self, minibatch: int) -> int:
        """Samples of the m-th minibatch of a round; passes over the round are split alike."""
        batch, parts = self.steps * self.copies, self.algorithm.minibatches
        return batch // parts + (minibatch % parts < batch % parts)

    def most_rows(self, per: Per) -> int:
        """The most rows that a message has."""
        if per == "copy":
            return self.copies
        if per == "sample":
            return self.samples(0)
        # at the end of the rollout, and wherever a time limit ends an episode; the first one may be short
        return self.copies * (2 + self.steps // (self.deployment.horizon or 1))


@dataclass(frozen=True, slots=True)
class Row:
    """One kind in one deployment.

    Attributes:
        receivers: For every agent j, the agents that receive j's message; on the central plane routes are fixed instead.
        width: Numbers per row of the message of an agent.
        per: What a row is of: a copy of the world, the end of a rollout or episode, or a sample of a minibatch.
    """

    receivers: Callable[[Scopes], Audiences]
    width: Callable[[Sizes, int], int]
    per: Per = "copy"


@lru_cache(maxsize=4)
def _widths(deployment: Deployment, scope: CriticScope, reach: tuple[int, Literal["hops", "agents"]]) -> tuple[int, ...]:
    n, near = deployment.n_agents, visible(deployment.graph(), *reach)
    return tuple(sum(deployment.obs_dims[j] for j in scope_agents(scope, i, near[i], n)) for i in range(n))


def joint_width(sizes: Sizes, agent: int) -> int:
    """Numbers per step of a JOINT: observation, reward and costs, the action where it is needed to learn from, end flag."""
    actions = sizes.deployment.act_dims[agent] if sizes.algorithm.recipe.is_led else 0
    return sizes.deployment.obs_dims[agent] + sizes.signals + actions + 1


def policy_width(width: int, n_discrete: int, algorithm: Algorithm) -> int:
    """Numbers of a POLICY: the weights of a network of choices, then offset and scale of each of its `width` inputs."""
    return _network_size(width, n_discrete, algorithm) + 2 * width


def policy_size(width: int, act_dim: int, n_discrete: int, algorithm: Algorithm) -> int:
    """Weights of the policy of an agent with `width` inputs; those of a Gaussian end with its spread."""
    return _network_size(width, n_discrete or act_dim, algorithm) + (0 if n_discrete else act_dim)


def _network_size(width: int, outputs: int, algorithm: Algorithm) -> int:
    layers = [width, *algorithm.hidden, outputs]
    norms = 2 * sum(algorithm.hidden) if algorithm.layer_norm else 0
    return sum(a * b + b for a, b in pairwise(layers)) + norms + (2 * width if algorithm.input_norm == "layer" else 0)


def _shared(sizes: Sizes, agent: int) -> int:
    deployment = sizes.deployment
    return policy_size(deployment.obs_dims[agent], deployment.act_dims[agent], deployment.n_discrete[agent], sizes.algorithm)


def consensus_width(sizes: Sizes, agent: int) -> int:
    """Numbers of a CONSENSUS: the degree, then of actor and critics what is averaged, each with mean and spread of its inputs."""
    algorithm, deployment, numbers = sizes.algorithm, sizes.deployment, 1
    per_input = 2 if algorithm.input_norm == "running" else 0
    if algorithm.recipe.averages_policy:
        width = sizes.actor_widths[agent]
        numbers += policy_size(width, deployment.act_dims[agent], deployment.n_discrete[agent], algorithm) + per_input * width
    if algorithm.recipe.averages_critic:
        width = sizes.critic_widths[agent]
        numbers += sizes.signals * _network_size(width, 1, algorithm) + per_input * width
    return numbers


def _next_holders(scopes: Scopes) -> Audiences:
    n = len(scopes.visible)
    takes_turns = scopes.algorithm.recipe.order == "alternating" and n > 1
    return [(turns.holder(j + 1, n),) for j in range(n)] if takes_turns else scopes.no_audience


ROWS: dict[Kind, Row] = {
    Kind.STATE: Row(lambda scopes: audiences(scopes.both), lambda sizes, agent: sizes.deployment.obs_dims[agent]),
    Kind.BOOTSTRAP: Row(
        lambda scopes: audiences(scopes.critics), lambda sizes, agent: sizes.deployment.obs_dims[agent], per="cut"
    ),
    Kind.REWARD: Row(
        lambda scopes: audiences(scopes.visible) if scopes.algorithm.reward == "khop_mean" else scopes.no_audience,
        lambda sizes, agent: sizes.steps,
    ),
    Kind.JOINT: Row(lambda scopes: scopes.no_audience, lambda sizes, agent: sizes.steps * joint_width(sizes, agent)),
    Kind.ADVANTAGE: Row(lambda scopes: scopes.no_audience, lambda sizes, agent: sizes.steps * sizes.signals),
    Kind.POLICY: Row(
        lambda scopes: scopes.no_audience,
        lambda sizes, agent: policy_width(sizes.deployment.obs_dims[agent], sizes.deployment.n_discrete[agent], sizes.algorithm),
    ),
    Kind.SCORE: Row(
        lambda scopes: scopes.others if scopes.algorithm.recipe.is_ranked else scopes.no_audience, lambda sizes, agent: 1
    ),
    Kind.RATIO_MB: Row(
        lambda scopes: scopes.factor if scopes.algorithm.recipe.is_coupled else scopes.no_audience,
        lambda sizes, agent: 1,
        per="sample",
    ),
    Kind.RATIO: Row(
        lambda scopes: scopes.no_audience if scopes.algorithm.recipe.is_coupled else scopes.factor,
        lambda sizes, agent: sizes.steps,
    ),
    Kind.TOKEN: Row(_next_holders, lambda sizes, agent: turns.TOKEN_WIDTH),
    Kind.PARAMETERS: Row(lambda scopes: scopes.no_audience, _shared),
    Kind.CONSENSUS: Row(
        lambda scopes: scopes.no_audience if scopes.algorithm.recipe.consensus == "none" else scopes.neighbours, consensus_width
    ),
    Kind.MULTIPLIER: Row(
        lambda scopes: scopes.neighbours if scopes.algorithm.shares_budget else scopes.no_audience,
        lambda sizes, agent: 1 + 2 * len(sizes.deployment.cost_limits),
    ),
    Kind.SHARED: Row(lambda scopes: scopes.no_audience, _shared),
}


def sizes_of(scenario: Scenario, deployment: Deployment) -> Sizes:
    """The sizes of a scenario."""
    reach = (scenario.kappa, scenario.kappa_unit)
    return Sizes(scenario.algorithm, deployment, scenario.rollout.steps, scenario.env.num_envs, reach)


@lru_cache(maxsize=4)
def widths(sizes: Sizes) -> dict[Kind, tuple[int, ...]]:
    """Numbers per row of the message of every agent, by kind; in one process all agents share it."""
    return {kind: tuple(row.width(sizes, agent) for agent in range(sizes.deployment.n_agents)) for kind, row in ROWS.items()}


def averaged(scenario: Scenario, deployment: Deployment) -> int:
    """The most numbers of an agent that neighbours average."""
    sizes = sizes_of(scenario, deployment)
    return max(consensus_width(sizes, agent) for agent in range(deployment.n_agents)) - 1


def sent(scenario: Scenario, deployment: Deployment) -> tuple[Kind, ...]:
    """The kinds that agents and the central process of a run send; where nothing is learnt, STATE alone."""
    algorithm, found = scenario.algorithm, []
    for kind in ROWS:
        key, _, value = FACTS[kind].only_with.removeprefix("algorithm.").partition("=")
        is_set = not key or str(getattr(algorithm, key)).lower() == value
        if is_set and FACTS[kind].sent_by(algorithm.recipe) and (deployment.learns or kind is Kind.STATE):
            found.append(kind)
    return tuple(found)


def largest_peer_body(scenario: Scenario, deployment: Deployment) -> int:
    """Bytes of the largest buffer that any message between agents, or with the central process, has."""
    sizes = sizes_of(scenario, deployment)
    found = [sizes.copies * DELIVERY_BYTES]
    for kind in sent(scenario, deployment):
        most = max(widths(sizes)[kind])
        found.append(sizes.most_rows(ROWS[kind].per) * row_bytes(most, dtype_of(scenario.network, kind)))
    return max(found)
