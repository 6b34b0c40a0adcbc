"""An agent that acts on values learnt elsewhere: by the weights that it was sent last, and at random with probability ε.

Theory of operation. It begins with the weights that follow from the shared seed, as the learner's do, and takes new ones at
the end of a round. Environment copies are deployments of their own: one that new weights have not reached acts by those that
it has. So there may be several versions in use; one that no copy acts by is forgotten.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from node.learners.interface import AgentLearner, Bools, Floats, Origin
from node.learners.off_policy.action_values import fitting, network
from node.learners.off_policy.learner import Exploration
from node.numerics.critics import Shape
from node.numerics.networks import torch_stream
from node.numerics.normalise import InputNorm, Standardised
from node.numerics.policies import UNAVAILABLE
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose
from scenarios.kinds import Kind
from scenarios.schema import Algorithm
from topology.snapshot import State


class Executor(AgentLearner):
    """One agent's choices by weights that another process has learned.

    Args:
        shape: Sizes.
        algorithm: Hyperparameters.
    """

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        self._shape = shape
        self._net = network(algorithm, shape.actor_width, shape.n_discrete, torch_stream(shape.seed, Purpose.INIT, shape.agent))
        self._norm = InputNorm(shape.actor_width, running=algorithm.input_norm == "running")
        self._exploration = Exploration(shape, algorithm)
        weights = nn.utils.parameters_to_vector(self._net.parameters()).detach()
        self._versions = [torch.cat((weights, self._norm.weights().flatten()))]  # ascending by age, the newest last
        self._version = np.zeros(shape.copies, np.intp)  # the one that each copy acts by
        self._loaded = self._versions[0]

    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration."""
        self._exploration.begin(round_, explore=explore)

    def act(self, step: int, observation: Floats) -> Floats:
        """Choices (E, 1) for the observation (E, D) of one step, of those that can be made."""
        own, available = torch.from_numpy(self._shape.for_actor(observation)), self._shape.available(observation)
        liked = np.zeros((len(own), 1), np.float32)
        with torch.inference_mode():
            for number, version in enumerate(self._versions):
                self._load(version)
                mine = self._version == number
                values = self._net(self._norm(own[mine])).numpy()
                if available is not None:
                    values[~available[mine]] = UNAVAILABLE
                liked[mine] = values.argmax(1, keepdims=True)
        return self._exploration(step, liked, available)

    def take_policy(self, sent: Floats, came: NDArray[np.bool_]) -> None:
        """Take new weights, (E, W), in the copies which they have reached, (E,)."""
        if came.any():
            self._version[came] = len(self._versions)
            self._versions.append(torch.from_numpy(sent[came.argmax()].copy()))
            kept, self._version = np.unique(self._version, return_inverse=True)
            self._versions = [self._versions[number] for number in kept]

    def takes(self, kind: Kind, origin: int, data: Floats, came: Bools) -> None:
        """See `AgentLearner.takes`: the weights to act by."""
        if kind is not Kind.POLICY:
            super().takes(kind, origin, data, came)
        self.take_policy(data, came)

    def learn_values(self, round_: int, rollout: Rollout, reward: Floats) -> Iterator[None]:
        """Nothing: values are learnt elsewhere."""
        return iter(())

    def sit_out(self, rollout: Rollout) -> Mapping[str, float]:
        """A round in which the agent was down: there are no metrics."""
        return {}

    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """The round's metrics by name: ε, and how many versions of the weights copies act by from now on."""
        return {"epsilon": self._exploration.epsilon, "versions": float(len(self._versions))}

    def weights(self) -> dict[str, Tensor]:
        """The newest network and its inputs' statistics."""
        width = self._shape.actor_width
        weights, inputs = self._versions[-1].split([len(self._versions[-1]) - 2 * width, 2 * width])
        return {"q": weights, "inputs": inputs.view(2, width)}

    def module(self) -> nn.Module:
        """See `AgentLearner.module`: values of choices, by the newest weights."""
        self._load(self._versions[-1])
        return Standardised(self._norm, self._net)

    def load_policy(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what acting needs from a checkpoint.

        Raises:
            ValueError: the checkpoint does not fit this scenario's values.
        """
        try:
            stored = [fitting(tensors, name, tuple(own.shape)) for name, own in self.weights().items()]
        except ValueError as error:
            raise ValueError(f"checkpoint of agent {self._shape.agent}: {error}") from None
        self._versions = [torch.cat([each.flatten() for each in stored])]
        self._version[:] = 0

    def inherit(self, origin: Origin) -> None:
        """See `AgentLearner.inherit`: the weights to act by until others come."""
        self.load_policy(origin.actor.tensors)

    def state(self) -> State:
        """Every version in use, and by which each copy acts."""
        return {"versions": [version.numpy() for version in self._versions], "version": self._version.copy()}

    def restore(self, state: State) -> None:
        """Take the state of an executor of the same agent and scenario."""
        self._versions = [torch.from_numpy(version) for version in state["versions"]]
        self._version = state["version"]

    def _load(self, version: Tensor) -> None:
        if self._loaded is version:
            return
        width = self._shape.actor_width
        weights, inputs = version.split([len(version) - 2 * width, 2 * width])
        nn.utils.vector_to_parameters(weights, self._net.parameters())
        self._norm.load(inputs.view(2, width))
        self._loaded = version
