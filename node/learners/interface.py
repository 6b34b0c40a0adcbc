"""What the runtime needs of a learner, whichever way the agent learns.

A learner acts on observations, gives and takes messages by kind, and learns from a rollout. On-policy, off-policy,
model-based and led agents implement this one interface, so the runtime never asks which it has.

What belongs to the rollout (STATE, BOOTSTRAP, REWARD, JOINT, TOKEN) is made and put together by the runtime
(`node.runtime.exchange`). All other kinds come from `gives` and go to `takes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from node.numerics.inherited import Inherited
from node.numerics.rollout import Rollout
from scenarios.kinds import Kind
from topology.snapshot import Stateful

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Origin:
    """What another run has left of an agent, for a learner to begin with.

    Attributes:
        actor: Its weights, seen through the inputs of actors.
        critics: The same weights, seen through the inputs of critics.
    """

    actor: Inherited
    critics: Inherited


class AgentLearner(Stateful, ABC):
    """One agent's learner.

    Attributes:
        always_explores: Whether it explores in rounds in which the agent has no turn: a stochastic policy does, because its
            chance is part of it.
    """

    always_explores = False

    @abstractmethod
    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration, and fix the step sizes."""

    @abstractmethod
    def act(self, step: int, observation: Floats) -> Floats:
        """Actions (E, A) for the inputs (E, D) of one step; a discrete action is its index, A = 1."""

    def forget(self, ended: Bools) -> None:
        """Episodes have ended in some copies, (E,)."""

    def gives(self, kind: Kind) -> Floats:
        """The agent's own message of a kind, one row per copy or sample.

        Raises:
            LookupError: the learner has no message of this kind.
        """
        raise LookupError(f"{type(self).__name__} has no {kind.name} to give")

    def takes(self, kind: Kind, origin: int, data: Floats, came: Bools) -> None:
        """Take in a message of a kind.

        Args:
            kind: Its kind.
            origin: The agent that it is from; on the central plane the agent that it is for.
            data: One row per copy.
            came: (E,) copies in which it has arrived; the rows of the others say nothing.

        Raises:
            LookupError: the learner has no use for this kind.
        """
        raise LookupError(f"{type(self).__name__} has no use for {kind.name} of agent {origin}")

    @abstractmethod
    def learn_values(self, round_: int, rollout: Rollout, reward: Floats) -> Iterator[None]:
        """Take the round in and learn what needs no other agent; pauses after every minibatch.

        Args:
            round_: Round k.
            rollout: The samples.
            reward: (T, E) what to learn from: the agent's own reward, or a mean over its ball.
        """

    def learn_policy(self, rollout: Rollout, earlier: Sequence[Floats]) -> Iterator[None]:
        """Update the policy, given the log-ratios (B,) of the agents that it depends on; pauses after every minibatch.

        Learners whose policy follows from values do nothing here.
        """
        return iter(())

    def permutations(self, round_: int) -> list[NDArray[np.intp]]:
        """The order (B,) of a round's samples in each pass.

        Raises:
            LookupError: the learner does not learn minibatch by minibatch with others.
        """
        raise LookupError(f"{type(self).__name__} does not learn on the ratios of others")

    def step_coupled(self, rollout: Rollout, others: Sequence[Floats]) -> None:
        """Take the others' log-ratios on the minibatch before, if any, and prepare `gives(RATIO_MB)` on the next.

        Raises:
            LookupError: as `permutations`.
        """
        raise LookupError(f"{type(self).__name__} does not learn on the ratios of others")

    @abstractmethod
    def sit_out(self, rollout: Rollout) -> Mapping[str, float]:
        """A round without a turn, or in which the agent was down: nothing is learnt; the round's metrics by name."""

    @abstractmethod
    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """Let the input statistics take in the round; the round's metrics by name."""

    def agreeing(self) -> Mapping[str, Floats]:
        """The weights on which agents are to agree, by network, (P,) each; none where they do not average any."""
        return {}

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """All that is learnt, by name, in a fixed order."""

    @abstractmethod
    def load_policy(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what acting needs from a checkpoint.

        Raises:
            ValueError: the checkpoint does not fit.
        """

    def inherit(self, origin: Origin) -> None:
        """Begin with what another run has learnt; optimisers, replays and counts of steps begin afresh.

        Raises:
            ValueError: it does not fit.
        """
        raise ValueError(f"init_from: {type(self).__name__} cannot begin with what another run has learnt")

    def module(self) -> nn.Module:
        """The policy's network with the statistics of its inputs: means of actions, or logits or values of choices.

        Raises:
            LookupError: the policy is no network that looks at one observation alone.
        """
        raise LookupError(f"{type(self).__name__} has no network that looks at one observation alone")
