"""The off-policy learner: acts on values, explores, and learns from replay at the end of every round.

Theory of operation. It is driven as `node.learners.on_policy.learner.Learner` is, and by the same messages, of which it needs
none. During a round it acts on what it likes best: with choices it takes any of them at random with probability ε, otherwise it
adds Gaussian noise. After the round it puts the samples into its replay and learns from as many minibatches as the samples have
earned (`updates_per_step`). What followed a sample is the next one of its copy, or the observation at the cut; where an episode
terminated, it is what the agent itself saw last, which matters to I2Q alone.

With turns (`order: alternating`) a round belongs to one agent: the others `sit_out` the round, and do not explore
in it. When a turn comes back and replay is `per_turn`, all that is older is forgotten, because the others were others then.

What must not change: chance is drawn by agent and round, whatever was learnt before.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from node.learners.interface import AgentLearner, Floats, Origin
from node.learners.off_policy.action_values import ActionValues, DoubleQ, Networked, Samples, Tabular, TwinDelayed
from node.learners.off_policy.recurrent import RecurrentQ
from node.numerics.critics import Shape
from node.numerics.networks import torch_stream
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose, stream
from node.protocol.turns import rounds_held
from scenarios.registry import REPRESENTATIONS
from scenarios.schema import Algorithm


def make_values(shape: Shape, algorithm: Algorithm) -> ActionValues:
    """An agent's values, in the representation that has this registered name."""
    made: ActionValues = REPRESENTATIONS.resolve(algorithm.off_policy.representation)(shape, algorithm)
    return made


def tables(shape: Shape, algorithm: Algorithm) -> ActionValues:
    """Values of choices, a row of a table per observation."""
    return Tabular(shape.n_discrete, algorithm, stream(shape.seed, Purpose.INIT, shape.agent), shape.actor_mask)


def memories(shape: Shape, algorithm: Algorithm) -> ActionValues:
    """Values of choices by a network that remembers the episode."""
    generator = torch_stream(shape.seed, Purpose.INIT, shape.agent)
    return RecurrentQ(shape.actor_width, shape.n_discrete, shape.steps, shape.copies, algorithm, generator)


def networks(shape: Shape, algorithm: Algorithm) -> ActionValues:
    """Values by networks, of choices or of numbers."""
    generator = torch_stream(shape.seed, Purpose.INIT, shape.agent)
    if shape.n_discrete:
        return DoubleQ(shape.actor_width, shape.n_discrete, algorithm, generator, shape.actor_mask)
    return TwinDelayed(shape.actor_width, shape.act_dim, algorithm, generator)


def steps_before(shape: Shape, algorithm: Algorithm, round_: int) -> int:
    """Environment steps, over all copies, of earlier rounds in which the agent could learn: with turns, those that it held."""
    if algorithm.recipe.order == "alternating":
        round_ = rounds_held(round_, shape.agent, shape.n_agents, algorithm.turn_rounds)
    return round_ * shape.steps * shape.copies


class Exploration:
    """Chance in what an agent does: a round's of it is drawn when the round begins.

    Args:
        shape: Sizes.
        algorithm: Hyperparameters.

    Attributes:
        epsilon: Probability of a random choice in the round.
    """

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        self._shape = shape
        self._algorithm = algorithm
        self._random = np.zeros((0, 0), np.bool_)  # which actions of the round are drawn at random
        self._noise = np.zeros((0, 0, 0), np.float32)  # what those are, or what is added to the others
        self.epsilon = 0.0

    def begin(self, round_: int, *, explore: bool) -> None:
        """Draw a round's; without `explore` there is none."""
        shape, settings = self._shape, self._algorithm.off_policy
        draw = stream(shape.seed, Purpose.NOISE, shape.agent, round_)
        size = (shape.steps, shape.copies)
        done = steps_before(shape, self._algorithm, round_)
        is_new = done < settings.warm_up_steps
        chance = draw.random(size)
        if shape.n_discrete:
            left = max(0.0, 1.0 - done / settings.epsilon_steps) if settings.epsilon_steps else 0.0
            self.epsilon = 1.0 if is_new else settings.epsilon_end + left * (settings.epsilon_start - settings.epsilon_end)
            self._noise = draw.integers(shape.n_discrete, size=(*size, 1)).astype(np.float32)
            self._random = chance < self.epsilon
        else:
            each = (*size, shape.act_dim)
            noise = draw.uniform(-1.0, 1.0, each) if is_new else settings.noise_std * draw.standard_normal(each)
            self._noise = (settings.action_bound * noise).astype(np.float32)
            self._random = np.full(chance.shape, is_new)
        if not explore:
            self._random = np.zeros(chance.shape, np.bool_)
            self._noise = np.zeros_like(self._noise)

    def __call__(self, step: int, liked: Floats, available: NDArray[np.bool_] | None = None) -> Floats:
        """Actions (E, A) of a step, given those liked best; of choices those that are `available`, (E, C), None: all."""
        random, noise = self._random[step][:, None], self._noise[step]
        if available is not None:  # the number drawn counts through those that can be taken
            in_order = np.argsort(~available, axis=1, kind="stable")
            place = noise.astype(np.intp) % np.maximum(available.sum(axis=1, keepdims=True), 1)
            noise = np.take_along_axis(in_order, place, axis=1).astype(np.float32)
        if self._shape.n_discrete:
            return np.where(random, noise, liked)
        bound = self._algorithm.off_policy.action_bound
        return np.asarray(np.where(random, noise, np.clip(liked + noise, -bound, bound)), np.float32)


class OffPolicyLearner(AgentLearner):
    """One agent's values, its exploration and its replay.

    Args:
        shape: Sizes.
        own: The agent's own columns of the observation.
        algorithm: Hyperparameters.
    """

    STATE = ("_values", "_earned", "_has_rested", "_begins")

    def __init__(self, shape: Shape, own: slice, algorithm: Algorithm) -> None:
        self._shape = shape
        self._own = own
        self._algorithm = algorithm
        self._values = make_values(shape, algorithm)
        self._exploration = Exploration(shape, algorithm)
        self._earned = 0.0  # minibatches not yet learnt from
        self._has_rested = False
        self._begins = np.ones(shape.copies, np.bool_)  # copies in which an episode begins with the round

    # ---------------------------------------------------------------- acting

    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration, and fix the step sizes."""
        self._exploration.begin(round_, explore=explore)
        self._values.decay(self._algorithm.step_fraction(round_, self._shape.rounds, self._shape.extended))

    def act(self, step: int, observation: Floats) -> Floats:
        """Actions (E, A) for the observation (E, D) of one step; a choice is its index, A = 1."""
        liked = self._values.best(self._shape.for_actor(observation))
        return self._exploration(step, liked, self._shape.available(observation))

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """Episodes have ended in some copies, (E,): nothing that was seen in them is remembered."""
        self._values.forget(ended)

    # -------------------------------------------------------------- learning

    def learn_values(self, round_: int, rollout: Rollout, reward: Floats) -> Iterator[None]:
        """Take the round in and learn from replay; pauses after every minibatch.

        Args:
            round_: Round k.
            rollout: The samples.
            reward: (T, E) what to learn from: the agent's own reward, or a mean over its ball.
        """
        shape, settings = self._shape, self._algorithm.off_policy
        if self._has_rested and settings.replay == "per_turn":
            self._values.replay.clear()
        self._has_rested = False
        fresh = self._samples(rollout, reward).present(self._shape.takes_part(rollout.observation))
        if len(fresh.reward):
            self._values.take(fresh)
        self._begins = rollout.terminated[-1] | rollout.truncated[-1]
        if steps_before(shape, self._algorithm, round_) + shape.steps * shape.copies <= settings.warm_up_steps:
            return
        self._earned += settings.updates_per_step * len(fresh.reward)
        if not len(self._values.replay):
            return
        minibatches = int(self._earned)
        self._earned -= minibatches
        yield from self._values.learn(minibatches, stream(shape.seed, Purpose.SHUFFLE, shape.agent, round_))

    def sit_out(self, rollout: Rollout) -> Mapping[str, float]:
        """A round without a turn, or without a node: nothing learnt is touched, and there are no metrics."""
        self._has_rested = self._algorithm.recipe.order == "alternating"
        self._begins = rollout.terminated[-1] | rollout.truncated[-1]
        return {}

    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """Let the input statistics take in the round; the round's metrics by name."""
        inputs, there = self._shape.for_actor(rollout.observation), self._shape.takes_part(rollout.observation)
        self._values.end(inputs if there is None else inputs[there])
        metrics = {"replay": float(len(self._values.replay)), **self._values.metrics()}
        return metrics | {"epsilon": self._exploration.epsilon} if self._shape.n_discrete else metrics

    # ------------------------------------------------------------- checkpoint

    def weights(self) -> dict[str, Tensor]:
        """All that is learnt, by name, in a fixed order."""
        return self._values.weights()

    def module(self) -> nn.Module:
        """See `AgentLearner.module`: values of choices, or actions before they are brought within their bound."""
        if not isinstance(self._values, Networked):
            return super().module()
        return self._values.module()

    def load_policy(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what acting needs from a checkpoint.

        Raises:
            ValueError: the checkpoint does not fit this scenario's values.
        """
        try:
            self._values.load(tensors)
        except ValueError as error:
            raise ValueError(f"checkpoint of agent {self._shape.agent}: {error}") from None

    def inherit(self, origin: Origin) -> None:
        """See `AgentLearner.inherit`: the values, and the statistics of their inputs.

        Raises:
            ValueError: they do not fit.
        """
        try:
            self._values.inherit(origin.actor)
        except ValueError as error:
            raise ValueError(f"init_from: agent {self._shape.agent}: {error}") from None

    # ---------------------------------------------------------------- pieces

    def _samples(self, rollout: Rollout, reward: Floats) -> Samples:
        following = rollout.following()
        for step, copy in np.argwhere(rollout.terminated):
            following[step, copy, self._own] = rollout.cut_blocks[int(step)][copy]
        terminated, _ = rollout.own_ends(presence := self._shape.presence)
        if presence is not None:
            following[..., presence] = 1.0  # as in all that is learnt from, where its time was up too
        return Samples(
            observation=self._shape.for_actor(rollout.observation).copy(),
            action=rollout.action.reshape(-1, rollout.action.shape[-1]).copy(),
            reward=reward.reshape(-1).copy(),
            following=self._shape.for_actor(following),
            terminated=terminated.reshape(-1).copy(),
            is_first=np.concatenate((self._begins[None], (rollout.terminated | rollout.truncated)[:-1])).reshape(-1),
        )
