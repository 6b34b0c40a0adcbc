"""What an agent's messages are made of, and what those of the others come to.

Kinds that carry the rollout (STATE, BOOTSTRAP, REWARD, JOINT, TOKEN) are made and put together here; the others come from
the learner and go to it (`node.learners.interface`). So a new kind needs a row in each catalogue, and in a learner one
`gives` and one `takes`; nothing here or in the loop names it.

`collect` is called at the moments of a round (`scenarios.kinds.Moment`), when the protocol says that all messages of
these moments are here, or will not come.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from node.learners.interface import AgentLearner
from node.numerics.rollout import Rollout
from node.protocol.neighbour_cache import NeighbourCache
from node.protocol.routing import AgentRouting
from node.runtime.clock import Clock
from node.runtime.mailbox import Bools, Floats, Mailbox
from scenarios.kinds import Kind, Moment, at
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.planes.world import END_TERMINATED, END_TRUNCATED, Sense
from topology.snapshot import Stateful

_NOT_HANDED_ON = frozenset({  # to the learner: put together here, or only waited for
    Kind.BOOTSTRAP, Kind.REWARD, Kind.SCORE, Kind.RATIO, Kind.RATIO_MB,
})  # fmt: skip


class Exchange(Stateful):
    """One agent's rollout, and the messages about it.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: This agent.
        routing: Its scopes and routes.
        learner: Its learner.
        mailbox: What peers have sent.
        clock: Its clock.

    Attributes:
        rollout: The round's samples.
        cache: The last states of the others.
        obs: What the agent senses at this step, (E, d).
        null: Copies whose STATE of this step says nothing new; None: all say something.
        sits_out: Whether the agent learns nothing in this round.
    """

    STATE = ("obs", "sent", "cache")

    def __init__(
        self,
        scenario: Scenario,
        deployment: Deployment,
        agent: int,
        routing: AgentRouting,
        learner: AgentLearner,
        mailbox: Mailbox,
        clock: Clock,
    ) -> None:
        self._agent = agent
        self._routing = routing
        self._learner = learner
        self._mailbox = mailbox
        self._clock = clock
        self._recipe = scenario.algorithm.recipe
        self._averages_reward = scenario.algorithm.reward != "own"
        self._minibatches = scenario.algorithm.minibatches
        self._copies = scenario.env.num_envs
        self._signals = 1 if self._recipe.constraint == "none" else 1 + len(deployment.cost_limits)
        steps, dims = scenario.rollout.steps, deployment.obs_dims
        self.rollout = Rollout.make(
            steps, self._copies, routing.observation.width, deployment.act_dims[agent], len(deployment.cost_limits)
        )
        others = {origin: dims[origin] for origin in routing.observation.places if origin != agent}
        self.cache = NeighbourCache(others, self._copies, hold=scenario.network.on_missing == "hold_last")
        self._threshold = scenario.network.state_threshold
        self.obs: Floats = np.zeros((self._copies, dims[agent]), np.float32)
        self.sent = np.full((self._copies, dims[agent]), np.inf, np.float32)  # the STATE rows last sent
        self.null: Bools | None = None
        self.sits_out = False
        self._given_up: set[int] = set()  # agents whose ratios on a minibatch have not come in this round
        self._own: dict[Kind, Callable[[int], Floats]] = {
            Kind.STATE: lambda round_: self.obs,
            Kind.BOOTSTRAP: lambda round_: self.rollout.own_cut_blocks(),
            Kind.REWARD: lambda round_: self.rollout.reward.T,
            Kind.JOINT: lambda round_: self._joint(),
            Kind.TOKEN: lambda round_: np.tile(mailbox.token(round_), (self._copies, 1)),
        }

    # ------------------------------------------------------------- the world

    def sense(self, obs: Floats) -> None:
        """A step begins with an observation (E, d): find out in which copies it is news to the others."""
        self.obs = obs
        if self._threshold > 0:
            news = np.abs(obs - self.sent).max(axis=1) > self._threshold
            self.sent[news] = obs[news]
            self.null = None if news.all() else ~news

    def close(self, sense: Sense) -> None:
        """The rollout is complete; its last observation opens the next."""
        self.obs = sense.obs
        self._mailbox.cut_copies = self.rollout.cuts()[:, 1]

    def let_in(self, round_: int, step: int) -> None:
        """Hand the states of this step to the cache; on the wall clock also those of earlier steps that have come since."""
        for origin, born_in, received in self._mailbox.pop_states(round_, step):
            if origin in self._routing.observation.places:
                self.cache.take(origin, received.time, received.data, received.delivery, label=(born_in, received.sender))

    def observe(self, step: int, until: float) -> Floats:
        """The inputs (E, D) of a step: own observation and the others' states that have arrived by a time."""
        observation: Floats = self.rollout.observation[step]
        for origin, place in self._routing.observation.places.items():
            observation[:, place] = self.obs if origin == self._agent else self.cache.recall(origin, self._clock.now, until)
        return observation

    def observe_nothing(self, step: int, until: float) -> Floats:
        """The same for an agent that is down: zeros, and its actions (E, A) are zero too."""
        self.rollout.observation[step] = 0.0
        self.cache.pass_over(until)
        return np.zeros_like(self.rollout.action[step])

    # -------------------------------------------------------------- messages

    def own(self, kind: Kind, round_: int, step: int) -> Floats:
        """This agent's own message, one row per copy, cut or sample."""
        if (make := self._own.get(kind)) is not None:
            return make(round_)
        if kind is Kind.RATIO_MB and self.sits_out:
            return np.zeros((len(self._mailbox.sample_copies[step]), 1), np.float32)
        return self._learner.gives(kind)

    def collect(self, round_: int, *moments: Moment) -> None:
        """Hand the messages of some moments to the learner, except those that are put together here."""
        for kind in at(*moments):
            uses = () if kind in _NOT_HANDED_ON else sorted(self._routing.routes(kind, round_).uses)
            for origin, came in self._mailbox.wait_for(kind, uses, self._clock, round_).items() if uses else ():
                received = self._mailbox.get(kind, origin, round_)
                if received is not None and kind is not Kind.TOKEN:  # a token says only that it is here
                    self._learner.takes(kind, origin, received.data, came)

    def put_together(self, round_: int) -> Floats:
        """What the learner needs of others before it learns: inputs at the cuts, and the reward (T, E) to learn from."""
        self.rollout.cut_observation = self._observation_at_cuts(round_)
        return self._mean_reward(round_) if self._averages_reward else self.rollout.reward

    def rank(self, round_: int) -> None:
        """Find the order of updates: what scores say counts, however late or lost they are (decision 0012)."""
        others = sorted(self._routing.routes(Kind.SCORE, round_).uses)
        self._mailbox.wait_for(Kind.SCORE, others, self._clock, round_)
        scores = {self._agent: float(self._learner.gives(Kind.SCORE)[0, 0])}
        for origin in others:
            received = self._mailbox.get(Kind.SCORE, origin, round_)
            assert received is not None, "an agent ranks once it has all scores"
            scores[origin] = float(received.data[0, 0])
        self._routing.rank(round_, scores)

    def split(self, round_: int) -> None:
        """Fix which sample is in which minibatch, for agents that learn on each other's ratios."""
        permutations = self._learner.permutations(round_)
        self._mailbox.sample_copies = [
            rows % self._copies for permutation in permutations for rows in np.array_split(permutation, self._minibatches)
        ]

    def earlier_ratios(self, round_: int) -> list[Floats]:
        """Log-ratios (B,) of the agents that have updated before this one and that it depends on, in their order."""
        uses = self._routing.routes(Kind.RATIO, round_).uses
        earlier = [origin for origin in self._routing.order(round_) if origin in uses]
        there = self._mailbox.wait_for(Kind.RATIO, earlier, self._clock, round_)
        ratios = []
        for origin in earlier:
            received = self._mailbox.get(Kind.RATIO, origin, round_)
            if received is not None and there[origin].any():
                ratios.append(np.where(there[origin], received.data.T, np.float32(0.0)).reshape(-1))
        return ratios

    def others_ratios(self, round_: int, minibatch: int) -> list[Floats]:
        """The others' log-ratios (M,) on a minibatch, ascending; 0 in copies where they are missing.

        An agent whose ratios were missing once is not waited for again in this round: else a round of many minibatches
        would cost patience as many times. Ratios of it that are here by then are used.
        """
        origins = sorted(self._routing.routes(Kind.RATIO_MB, round_).uses)
        waited_for = [origin for origin in origins if origin not in self._given_up]
        there = self._mailbox.wait_for(Kind.RATIO_MB, waited_for, self._clock, round_, minibatch)
        lacking = {origin for origin, came in there.items() if not came.all()}
        copies, ratios = self._mailbox.sample_copies[minibatch], []
        for origin in origins:
            received = self._mailbox.pop(Kind.RATIO_MB, origin, round_, minibatch)
            if received is None:
                came = np.zeros(self._copies, np.bool_)
            elif origin in there:
                came = there[origin]
            else:
                came = (
                    np.ones(self._copies, np.bool_) if received.delivery is None else received.delivery.arrive <= self._clock.now
                )
            if origin in self._given_up and not came.all():
                self._mailbox.miss(Kind.RATIO_MB, int((~came).sum()))
            ratios.append(np.where(came[copies], 0.0 if received is None else received.data[:, 0], 0.0).astype(np.float32))
        self._given_up |= lacking
        return ratios

    def end_round(self, round_: int) -> None:
        """Drop what belongs to the round."""
        self.rollout.clear()
        self._mailbox.end_round(round_)
        self._given_up.clear()
        self.sits_out = False

    # ---------------------------------------------------------------- pieces

    def _joint(self) -> Floats:
        """What the world has shown this agent in a round, as the central process needs it: (E, T·w)."""
        rollout, own = self.rollout, self._routing.observation.places[self._agent]
        end = rollout.terminated * END_TERMINATED + rollout.truncated * END_TRUNCATED
        costs = rollout.cost[:, :, : self._signals - 1]
        actions = rollout.action if self._recipe.is_led else rollout.action[:, :, :0]
        parts = (rollout.observation[:, :, own], rollout.reward[:, :, None], costs, actions, end[:, :, None])
        return np.concatenate(parts, axis=2, dtype=np.float32).transpose(1, 0, 2).reshape(self._copies, -1)

    def _observation_at_cuts(self, round_: int) -> Floats:
        cut_copies = self._mailbox.cut_copies
        observation = np.zeros((len(cut_copies), self._routing.observation.width), np.float32)
        others = [origin for origin in self._routing.critic_agents if origin != self._agent]
        there = self._mailbox.wait_for(Kind.BOOTSTRAP, others, self._clock, round_)
        observation[:, self._routing.observation.places[self._agent]] = self.rollout.own_cut_blocks()
        for origin in others:
            place, received = self._routing.observation.places[origin], self._mailbox.get(Kind.BOOTSTRAP, origin, round_)
            if received is None:
                observation[:, place] = self.cache.held(origin)[cut_copies]
            else:
                came = there[origin][cut_copies][:, None]
                observation[:, place] = np.where(came, received.data, self.cache.held(origin)[cut_copies])
        return observation

    def _mean_reward(self, round_: int) -> Floats:
        """The mean reward (T, E) of the agents within κ, of those whose rewards have come."""
        visible: Sequence[int] = self._routing.visible[self._agent]
        others = [origin for origin in visible if origin != self._agent]
        there: Mapping[int, NDArray[np.bool_]] = self._mailbox.wait_for(Kind.REWARD, others, self._clock, round_)
        total = np.zeros_like(self.rollout.reward, dtype=np.float64)
        count = np.ones(self._copies)
        for origin in visible:
            if origin == self._agent:
                total += self.rollout.reward
            elif (received := self._mailbox.get(Kind.REWARD, origin, round_)) is not None and there[origin].any():
                total += np.where(there[origin], received.data.T, 0.0)
                count += there[origin]
        return (total / count).astype(np.float32)
