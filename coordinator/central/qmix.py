"""QMIX's coordinator: learns every agent's values together and sends each the weights to act by.

It keeps the team's replay. Of a round it keeps the copies in which every agent's part has come: a transition without an agent's
action teaches nothing about the team. Where an agent's last observation has not come, the sample before it is left out. What
an agent is sent is the same for every copy.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coordinator.central.node import Mind, Told
from node.learners.off_policy.action_values import Samples
from node.learners.off_policy.mixer import Flags, Team
from node.numerics.inherited import Inherited
from node.numerics.seeds import Purpose, stream
from scenarios.schema import Scenario
from topology.deployment import Deployment

Floats = NDArray[np.float32]


class CentralMixer(Mind):
    """All agents' values, their mixer, and the team's replay.

    Args:
        scenario: The scenario.
        deployment: Sizes.
    """

    STATE = ("_team", "_earned")

    def __init__(self, scenario: Scenario, deployment: Deployment) -> None:
        self._scenario = scenario
        self._n = deployment.n_agents
        self._team = Team(deployment.obs_dims, deployment.n_discrete, scenario.algorithm, scenario.seed, Flags.of(deployment))
        self._earned = 0.0  # minibatches not yet learnt from

    def learn(self, round_: int, told: Told) -> None:
        """Take the round in and learn from replay."""
        settings = self._scenario.algorithm.off_policy
        fresh = team_samples(told)
        self._team.decay(self._scenario.step_fraction(round_))
        self._team.take(fresh)
        done = (round_ + 1) * self._scenario.rollout.steps * self._scenario.env.num_envs
        minibatches = 0
        if done > settings.warm_up_steps:
            self._earned += settings.updates_per_step * len(fresh.reward)
            minibatches = int(self._earned)
            self._earned -= minibatches
        self._team.learn(minibatches, stream(self._scenario.seed, Purpose.SHUFFLE, self._n, round_))
        self._team.end(fresh.observation)

    def rest(self) -> None:
        """Nothing changes."""

    def answer(self, agent: int) -> Floats:
        """The weights of an agent's network, and what its inputs are standardised by."""
        return np.tile(self._team.policy(agent), (self._scenario.env.num_envs, 1))

    def metrics(self) -> Mapping[str, float]:
        """Mean loss of the team's values, and how much there is in replay."""
        return self._team.metrics()

    def weights(self) -> dict[str, Tensor]:
        """Every agent's network, and the mixer."""
        return self._team.weights()

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the team of another run."""
        self._team.inherit(theirs)


def team_samples(told: Told) -> Samples:
    """The transitions of a round of which everything is known.

    What follows a termination is never looked at.
    """
    rollout, cuts = told.rollout, told.rollout.cuts()
    following = np.concatenate((rollout.observation[1:], rollout.observation[-1:]))
    following[cuts[:, 0], cuts[:, 1]] = rollout.cut_observation
    known = np.broadcast_to(told.is_whole, told.reward.shape).copy()
    known[cuts[:, 0], cuts[:, 1]] &= told.has_last[cuts[:, 1]]
    return Samples(
        observation=rollout.observation[known],
        action=rollout.action[known],
        reward=told.reward[known],
        following=following[known],
        terminated=rollout.terminated[known],
    )
