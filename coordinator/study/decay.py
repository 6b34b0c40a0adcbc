"""How fast the influence of others fades with hops, and what κ that speaks for.

Theory of operation. For every κ from 0 to the diameter of the graph there is a number that says how much of what lies
beyond κ hops still matters; it is 0 where κ reaches all agents. Where the answer is known exactly, it comes from the world:

- `network_lq`: J_κ/J* - 1, by how much the best linear policy that sees κ hops is worse than the best of all
(`envs.networks.lq.kappa_curve`).
- `truncation_chain`: the spread of an agent's advantage over the states and actions of those beyond κ hops, the mean over
agents (`envs.games.games.advantage_spreads`), at the policies that come with the chain.

For any other world a team that has learnt is asked (`of_team`). It plays without exploration and receives what it was trained
with; at every state it meets, each agent's action is compared with the one it would have taken had the blocks of those
beyond κ hops been what they are on average: root mean square for numbers, part that changed for choices. Then the team plays
once more for each κ with those blocks so replaced all the time, which gives the return that κ would leave it. Nothing is
learnt again, so that return is a lower bound of what training at κ can reach.

φ is the slope of a straight line through the logarithms of these numbers, φ^κ·const, by least squares; those that have
vanished are left out. The κ that is suggested is the smallest that misses no more than a given part of the influence at
κ = 0. What it costs is the payload of STATE, in closed form: every agent within κ is told a block per step.

Source: that influence falls as φ^κ is what κ-hop critics rest on (Qu, Wierman & Li 2020, arXiv:1912.02906); for advantages,
Scal-MAPPO-L. The bounds are loose by orders of magnitude; what is measured here is the decay itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from coordinator.records.plan import Plan, plan
from envs.games.games import advantage_spreads, build, chain_policies
from envs.games.settings import TruncationChain
from envs.networks.lq import kappa_curve
from envs.networks.settings import LQ
from envs.registry import make
from scenarios.loading import ScenarioError, load
from scenarios.schema import Scenario
from topology.deployment import CHECKPOINTS, SCENARIO_FILE, Deployment
from topology.graph.neighbourhood import diameter, visible
from topology.wire.codec import DType, row_bytes

VANISHED = 1e-6  # part of the number at κ = 0 below which it is rounding, or where the search for the best policy ended
ROUNDING = 1e-10  # exact numbers below are 0 with what the solvers leave
Floats = NDArray[np.float32]
Blocks = list[Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """What matters beyond κ hops, for every κ from 0 on.

    Attributes:
        what: What the numbers are, in words.
        remains: The numbers, means over agents where agents differ.
        by_agent: Those of each agent then.
        payload_bytes: Of STATE, per agent and step.
        returns: Mean return of an episode, where a team has played.
    """

    what: str
    remains: tuple[float, ...]
    by_agent: tuple[tuple[float, ...], ...] = ()
    payload_bytes: tuple[float, ...]
    returns: tuple[float, ...] = ()

    @property
    def phi(self) -> float | None:
        """φ; None if fewer than two numbers are left to draw a line through."""
        return fitted(self.remains)

    def suggested(self, part: float) -> int:
        """The smallest κ that misses at most this part of the influence at κ = 0."""
        return next((kappa for kappa, left in enumerate(self.remains) if left <= part * self.remains[0]), len(self.remains) - 1)


def fitted(remains: Sequence[float]) -> float | None:
    """φ of const·φ^κ through numbers for κ = 0, 1, …, by least squares of their logarithms.

    Example:
        >>> round(fitted([8.0, 4.0, 2.0, 0.0]), 6)
        0.5
    """
    points = [(kappa, math.log(left)) for kappa, left in enumerate(remains) if left > VANISHED * remains[0]]
    if len(points) < 2:
        return None
    kappas, logs = np.array(points).T
    return math.exp(np.polyfit(kappas, logs, 1)[0])


def exact(scenario: Scenario) -> Decay:
    """The decay of a world about which it is known.

    Raises:
        ScenarioError: it is known of no such world.
        ValueError: as `plan`.
    """
    ready = plan(scenario)
    graph = ready.deployment.graph()
    kappas = range(diameter(graph) + 1)
    paid = _payload(ready, kappas)
    env = scenario.env
    if isinstance(env, LQ):
        ratios = kappa_curve(graph, env, kappas)
        return Decay(
            what="cost of the best policy above the optimum", remains=tuple(_exactly(ratio - 1.0) for ratio in ratios),
            payload_bytes=paid,
        )  # fmt: skip
    if isinstance(env, TruncationChain):
        game, n = build(env), len(graph)
        if {*map(frozenset, graph.edges)} != {*map(frozenset, nx.path_graph(n).edges)}:
            raise ScenarioError(f"topology.kind: got {scenario.topology.kind!r}; the chain's answers are for the line")
        policies = chain_policies(n, env.seed)
        spreads = [[*map(_exactly, advantage_spreads(game, policies, i, scenario.algorithm.gamma))] for i in range(n)]
        return _of_agents("spread of advantages over far agents", spreads, paid)
    raise ScenarioError(
        f"env.name: got {scenario.env.name!r}; exact answers exist for network_lq and truncation_chain, of other worlds ask a "
        "team that has learnt: kappahop decay RUN"
    )


def _exactly(number: float) -> float:
    return float(number) if number > ROUNDING else 0.0


def of_team(run_dir: Path, *, episodes: int, seed: int) -> Decay:
    """The decay of what a finished run's team does, and what it earns at a smaller κ.

    Args:
        run_dir: The run; it received no further than its κ, so nothing is known of larger ones.
        episodes: At least so many per κ.
        seed: Of the world.

    Raises:
        ScenarioError: there are no final weights, or the policies use no neighbour.
    """
    weights = run_dir / CHECKPOINTS / "final"
    graph = Deployment.read(run_dir).graph()
    ready = plan(load(str(run_dir / SCENARIO_FILE), [f"seed={seed}"]), weights=weights, graph=graph)
    if ready.scenario.algorithm.recipe.actor_scope == "local":
        raise ScenarioError(f"{run_dir}: its policies use no neighbour (actor_scope: local), so there is nothing to fade")
    team = _Team(ready, weights)
    reach = diameter(team.graph) if ready.scenario.algorithm.recipe.actor_scope == "global" else team.reach()
    kappas = range(reach + 1)
    mean, blocks = team.play(episodes).mean_blocks()
    changes = np.array([team.changes(blocks, mean, kappa) for kappa in kappas]).T
    returns = [team.play(episodes, mean, kappa).ret for kappa in kappas]
    what = "part of choices that change" if ready.deployment.n_discrete[0] else "change of actions (rms)"
    return _of_agents(what, changes.tolist(), _payload(ready, kappas), returns)


def _of_agents(what: str, by_agent: Sequence[Sequence[float]], paid: tuple[float, ...], returns: Sequence[float] = ()) -> Decay:
    return Decay(
        what=what,
        remains=tuple(map(float, np.mean(by_agent, axis=0))),
        by_agent=tuple(tuple(one) for one in by_agent),
        payload_bytes=paid,
        returns=tuple(returns),
    )


@dataclass(frozen=True, slots=True)
class _Play:
    """What a team met: observations per step and agent, (E, d_i), and its mean return."""

    seen: list[Blocks]
    ret: float

    def mean_blocks(self) -> tuple[Blocks, Blocks]:
        """Each agent's mean block, (d_i,), and all of its blocks, (steps·E, d_i)."""
        blocks = [np.concatenate([step[i] for step in self.seen]) for i in range(len(self.seen[0]))]
        return [block.mean(axis=0) for block in blocks], blocks


class _Team:
    """Trained agents that play in this process, each shown directly what it would receive over links without limits."""

    def __init__(self, ready: Plan, weights: Path) -> None:
        from node.learners.beginning import load_weights
        from node.learners.making import make_on_policy_learner
        from node.protocol.routing import AgentRouting

        self._ready = ready
        self.graph = ready.deployment.graph()
        self._n = ready.deployment.n_agents
        self._routings = [AgentRouting(ready.scenario, ready.deployment, agent) for agent in range(self._n)]
        self._learners = [
            make_on_policy_learner(ready.scenario, ready.deployment, i, routing) for i, routing in enumerate(self._routings)
        ]
        for agent, learner in enumerate(self._learners):
            learner.load_policy(load_weights(weights, agent))
            learner.begin_round(0, explore=False)

    def reach(self) -> int:
        """The greatest distance over which an agent receives from another."""
        hops = dict(nx.all_pairs_shortest_path_length(self.graph))
        return max(int(hops[i][j]) for i, routing in enumerate(self._routings) for j in routing.actor_agents)

    def act(self, obs: Blocks, mean: Blocks | None, kappa: int) -> Blocks:
        """Each agent's actions, with the blocks of those beyond κ at their mean, if one is given."""
        actions = []
        near = visible(self.graph, kappa, "hops")
        for i, (routing, learner) in enumerate(zip(self._routings, self._learners, strict=True)):
            observation = np.zeros((len(obs[i]), routing.observation.width), np.float32)
            for origin, place in routing.observation.places.items():
                observation[:, place] = obs[origin] if mean is None or origin in near[i] else mean[origin]
            actions.append(learner.act(0, observation))
        return actions

    def changes(self, blocks: Blocks, mean: Blocks, kappa: int) -> list[float]:
        """By how much each agent's actions change without what lies beyond κ, over the blocks (B, d_i) that were met together."""
        n_discrete, size = self._ready.deployment.n_discrete, self._ready.scenario.env.num_envs  # for as many is noise drawn
        total, count = np.zeros(self._n), 0
        for start in range(0, len(blocks[0]), size):
            piece = [block[start : start + size] for block in blocks]
            pairs = zip(self.act(piece, None, 0), self.act(piece, mean, kappa), strict=True)
            total += [float(np.mean(a != b) if n_discrete[i] else np.mean((a - b) ** 2)) for i, (a, b) in enumerate(pairs)]
            count += 1
        return [float(found if n_discrete[i] else math.sqrt(found)) for i, found in enumerate(total / count)]

    def play(self, episodes: int, mean: Blocks | None = None, kappa: int = 0) -> _Play:
        """Let all copies play until enough episodes have ended."""
        scenario = self._ready.scenario
        world = make(scenario.env, self.graph, self._ready.deployment.seed(scenario))
        seen: list[Blocks] = []
        returns: list[float] = []
        obs = world.reset()
        while len(returns) < episodes:
            seen.append(obs)
            transition = world.step(self.act(obs, mean, kappa))
            returns += [episode.ret for episode in transition.episodes]
            obs = transition.obs
        world.close()
        return _Play(seen, float(np.mean(returns)))


def _payload(ready: Plan, kappas: Sequence[int]) -> tuple[float, ...]:
    """Payload of STATE per agent and step, for each κ in hops."""
    dims, graph = ready.deployment.obs_dims, ready.deployment.graph()
    dtype = DType[ready.scenario.network.codec.state.upper()]
    paid = []
    for kappa in kappas:
        near = visible(graph, kappa, "hops")
        paid.append(sum(row_bytes(dims[j], dtype) for i, ball in enumerate(near) for j in ball if j != i) / len(dims))
    return tuple(paid)
