"""The learning of one agent in a round: what it learns from, what it waits for, and how long that takes.

Theory of operation. The protocol says when to learn what (`node.protocol.machine`), the exchange has what to learn from, and
the learner learns. Here these three meet: messages of others are handed over, the work is timed, and virtual time moves on
by what it costs. An agent that has not its turn, or was down at some step of the round, sits the round out.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from node.learners.interface import AgentLearner
from node.numerics.networks import require_all_finite
from node.protocol.routing import AgentRouting
from node.runtime.clock import Clock
from node.runtime.compute_time import ComputeTime, Task
from node.runtime.exchange import Exchange
from scenarios.kinds import Moment
from scenarios.schema import Scenario
from topology.deployment import Deployment


class Learning:
    """One agent's learning.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        routing: The agent's scopes and routes.
        learner: Its learner.
        exchange: Its rollout, and the messages about it.
        clock: Its clock.
        compute_time: What its work costs in virtual time.
        pause: Called between minibatches, so that messages are passed on meanwhile.

    Attributes:
        minibatches: On which agents exchange ratios in a round; 0: none.
    """

    def __init__(
        self,
        scenario: Scenario,
        deployment: Deployment,
        routing: AgentRouting,
        *,
        learner: AgentLearner,
        exchange: Exchange,
        clock: Clock,
        compute_time: ComputeTime,
        pause: Callable[[], None],
    ) -> None:
        algorithm = scenario.algorithm
        self.minibatches = algorithm.epochs * algorithm.minibatches if algorithm.recipe.is_coupled else 0
        self._learns = deployment.learns
        self._is_advised = deployment.critic is not None
        self._routing = routing
        self._learner = learner
        self._exchange = exchange
        self._clock = clock
        self._compute_time = compute_time
        self._pause = pause
        self._sat_out: Mapping[str, float] | None = None  # metrics of a round in which this agent does not learn

    def values(self, round_: int, *, was_off: bool) -> None:
        """Estimate advantages and train the critics; `was_off`: the agent was down at some step of the round."""
        exchange = self._exchange
        if self.minibatches:
            exchange.split(round_)
        if not self._routing.has_turn(round_):
            self._sit_out()
            return
        if self._is_advised:
            reward = exchange.rollout.reward
            exchange.collect(round_, Moment.ANSWER)
        else:
            reward = exchange.put_together(round_)
            exchange.collect(round_, Moment.ROLLOUT_END)
        if was_off:
            self._sit_out()
            return
        work = self._learner.learn_values(round_, exchange.rollout, reward)
        if self._is_advised:  # the central process has learnt, and its time is in the answer's
            for _ in work:
                pass
        else:
            self._attend("values", work)

    def step(self, round_: int, minibatch: int) -> None:
        """Learn from the others' ratios on the minibatch before, and have this agent's own on the next."""
        others = self._exchange.others_ratios(round_, minibatch - 1) if minibatch else []
        if self._sat_out is None:
            began = time.perf_counter()
            self._learner.step_coupled(self._exchange.rollout, others)
            took_s = time.perf_counter() - began
            self._clock.now += self._compute_time("policy", self._clock.now, took_s, part=1 / self.minibatches)

    def policy(self, round_: int) -> None:
        """Train the actor, or, where ratios are exchanged on minibatches, take the last step."""
        if self.minibatches:
            others = self._exchange.others_ratios(round_, self.minibatches - 1)
            if self._sat_out is None:
                self._learner.step_coupled(self._exchange.rollout, others)
            return
        ratios = self._exchange.earlier_ratios(round_)
        if self._sat_out is None:
            self._attend("policy", self._learner.learn_policy(self._exchange.rollout, ratios))

    def end_round(self, round_: int) -> Mapping[str, float]:
        """Take in what comes when all have learned; the round's metrics by name.

        Raises:
            NotFiniteError: what has been learnt is not finite.
        """
        if not self._learns:
            return {}
        self._exchange.collect(round_, Moment.POLICY_END, Moment.MEAN)
        metrics = self._learner.end_round(self._exchange.rollout) if self._sat_out is None else self._sat_out
        self._sat_out = None
        require_all_finite(metrics, self._learner.weights())
        return metrics

    def _sit_out(self) -> None:
        self._sat_out = self._learner.sit_out(self._exchange.rollout)
        self._exchange.sits_out = True

    def _attend(self, task: Task, learning: Iterator[None]) -> None:
        """Let the learner work, passing messages on between its minibatches; what it takes moves the clock on."""
        took_s, began = 0.0, time.perf_counter()
        for _ in learning:
            took_s += time.perf_counter() - began
            self._pause()
            began = time.perf_counter()
        self._clock.now += self._compute_time(task, self._clock.now, took_s + time.perf_counter() - began)
