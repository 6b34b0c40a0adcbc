"""Values of choices that remember what was sensed since the episode began.

Theory of operation. A network reads one observation after the other: an encoder, a GRU cell, a linear map to one value per
choice. While the agent acts, the cell's memory lives on from step to step, over the ends of rounds, and is emptied when an
episode ends. Replay keeps stretches: a round of one environment copy each, in order. A minibatch is some stretches, read from
their beginning; memory is emptied inside them wherever an episode begins. At the beginning of a stretch it is empty too, although
the episode may be under way; therefore the first `burn_in` samples of such a stretch are read and not learnt from.

Values regress to r + gamma·Q̄(h', argmax_a Q(h', a)), where h' is the memory after what followed: the next observation, or the
last one of an episode that was cut off, each read by the network whose value it is.

Source: Hausknecht and Stone 2015 (arXiv:1507.06527); the burn-in, Kapturowski et al. 2019 (R2D2), who store memories too, which
we do not; sizes, the public code of QMIX. The last action, which that code feeds in as well, is not.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from node.learners.off_policy.action_values import ActionValues, Lagging, Samples, fitting, network, trainer
from node.numerics.inherited import Inherited
from node.numerics.normalise import InputNorm
from node.numerics.replay import Replay
from scenarios.schema import Algorithm

Floats = NDArray[np.float32]
UNITS = 64


class Reader(nn.Module):
    """The network: values (B, A) of memories, and memories of observations.

    Args:
        width: D.
        n_discrete: A.
        algorithm: Hyperparameters.
        generator: Draws the weights.
    """

    def __init__(self, width: int, n_discrete: int, algorithm: Algorithm, generator: torch.Generator) -> None:
        super().__init__()
        self._encoder = network(algorithm.model_copy(update={"head_gain": 1.0}), width, UNITS, generator)
        self._cell = nn.GRUCell(UNITS, UNITS)
        self._head = nn.Linear(UNITS, n_discrete)
        for weight, gain in ((self._cell.weight_ih, 1.0), (self._cell.weight_hh, 1.0), (self._head.weight, algorithm.head_gain)):
            nn.init.orthogonal_(weight, gain, generator=generator)
        for bias in (self._cell.bias_ih, self._cell.bias_hh, self._head.bias):
            nn.init.zeros_(bias)

    @property
    def first(self) -> Tensor:
        """The weights of the layer that takes the observation."""
        return self._encoder.first

    def forward(self, memory: Float[Tensor, "*B U"]) -> Float[Tensor, "*B A"]:
        """Values of choices."""
        values: Tensor = self._head(memory)
        return values

    def after(self, observation: Float[Tensor, "B D"], memory: Float[Tensor, "B U"]) -> Float[Tensor, "B U"]:
        """The memory after one more observation."""
        following: Tensor = self._cell(torch.relu(self._encoder(observation)), memory)
        return following

    def read(self, observation: Float[Tensor, "S T D"], is_first: Bool[Tensor, "S T"]) -> Float[Tensor, "S T U"]:
        """The memory after every observation of stretches, empty before those with which episodes or stretches begin."""
        encoded = torch.relu(self._encoder(observation.flatten(0, 1))).unflatten(0, is_first.shape)
        memory, memories = torch.zeros(len(observation), UNITS), []
        for step in range(observation.shape[1]):
            memory = self._cell(encoded[:, step], memory.masked_fill(is_first[:, step, None], 0.0))
            memories.append(memory)
        return torch.stack(memories, dim=1)


class RecurrentQ(ActionValues):
    """A network with one value per choice and a memory, learnt by double Q-learning.

    Args:
        width: D.
        n_discrete: A.
        steps: T, the length of a stretch.
        copies: E.
        algorithm: Hyperparameters.
        generator: Draws the weights.
    """

    STATE = ("_trainer", "_follower", "_memory", "_norm", "replay")

    def __init__(
        self, width: int, n_discrete: int, steps: int, copies: int, algorithm: Algorithm, generator: torch.Generator
    ) -> None:
        self._algorithm = algorithm
        self._steps = steps
        self._norm = InputNorm(width, running=algorithm.input_norm == "running")
        self.net = Reader(width, n_discrete, algorithm, generator)
        self._trainer = trainer(self.net, algorithm, algorithm.critic_lr)
        self._follower = Lagging(self.net, algorithm.off_policy.target_keep)
        self._memory = torch.zeros(copies, UNITS)
        self._loss = 0.0
        self.replay = Replay(max(1, algorithm.off_policy.buffer // steps))

    @property
    def lagging(self) -> Reader:
        """The network that targets are made of."""
        module = self._follower.module
        assert isinstance(module, Reader), "a copy of the learning one"
        return module

    def best(self, observation: Floats) -> Floats:
        """The first among the best choices, given what is remembered; the observation is remembered too."""
        with torch.no_grad():
            self._memory = self.net.after(self._norm(torch.from_numpy(observation)), self._memory)
            return np.asarray(self.net(self._memory).argmax(1, keepdim=True).numpy(), np.float32)

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """Empty the memory of copies in which an episode has ended, (E,)."""
        self._memory[torch.from_numpy(ended)] = 0.0

    def take(self, fresh: Samples) -> None:
        """Keep the stretches of a round, whose samples come step by step."""
        columns = (fresh.observation, fresh.action[:, 0], fresh.reward, fresh.following, fresh.terminated, fresh.is_first)
        self.replay.add(*(column.reshape(self._steps, -1, *column.shape[1:]).swapaxes(0, 1) for column in columns))

    def learn(self, minibatches: int, draw: np.random.Generator) -> Iterator[None]:
        """One step per minibatch, of as many stretches as have at least its number of samples."""
        total, stretches = 0.0, -(-self._algorithm.off_policy.batch // self._steps)
        for _ in range(minibatches):
            total += self.step(*(torch.from_numpy(column) for column in self.replay.sample(stretches, draw)))
            yield
        self._loss = total / max(minibatches, 1)

    def step(
        self,
        observation: Float[Tensor, "S T D"],
        action: Float[Tensor, "S T"],
        reward: Float[Tensor, "S T"],
        following: Float[Tensor, "S T D"],
        terminated: Bool[Tensor, "S T"],
        is_first: Bool[Tensor, "S T"],
    ) -> float:
        """Learn from some stretches; the loss over samples that are learnt from."""
        known = (is_first.cumsum(1) > 0) | (torch.arange(self._steps) >= self._algorithm.off_policy.burn_in)
        x, after = self._norm(observation), self._norm(following).flatten(0, 1)
        memory, lagging = self.net.read(x, is_first), self.lagging
        with torch.no_grad():
            liked = self.net(self.net.after(after, memory.flatten(0, 1))).argmax(1, keepdim=True)
            believed = lagging(lagging.after(after, lagging.read(x, is_first).flatten(0, 1))).gather(1, liked)
            onward = self._algorithm.gamma * (~terminated).to(torch.float32)
            target = reward + onward * believed.view_as(reward)
        error = self.net(memory).gather(2, action.long()[:, :, None]).squeeze(2) - target
        loss = error[known].square().sum() / known.sum().clamp_min(1)
        loss.backward()
        self._trainer.step()
        self._follower.follow()
        return float(loss.detach())

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        self._trainer.decay(fraction)

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the network of another run; memories are empty."""
        self._trainer.take(theirs.network("q", self.net, self.net.first))
        self._follower.catch_up()
        self._norm.inherit(theirs.statistics("inputs"), theirs.inputs, theirs.samples)

    def end(self, observations: Floats) -> None:
        """Let the input statistics take a round in."""
        self._norm.update(observations)

    def metrics(self) -> Mapping[str, float]:
        """Mean loss of Q."""
        return {"value_loss": self._loss}

    def weights(self) -> dict[str, Tensor]:
        """The network and its inputs' statistics."""
        return {"q": self._trainer.weights.detach(), "inputs": self._norm.weights()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the network and its inputs' statistics."""
        q = fitting(tensors, "q", tuple(self._trainer.weights.shape))
        inputs = fitting(tensors, "inputs", tuple(self._norm.weights().shape))
        with torch.no_grad():
            self._trainer.weights.copy_(q)
        self._norm.load(inputs)
