"""Networks that neighbours average with each other: gossip between agents that have no centre.

Theory of operation. In a round of gossip an agent sends its neighbours its degree and its networks, and moves its own to

    w_i + sum_j W_ij·s_ij·(w_j - w_i),      W_ij the Metropolis-Hastings weight of the edge (`topology.graph.mixing`),

j the neighbours and s_ij the part of the environment copies in which the message of j has come in time. What has not come leaves
its weight with the receiver itself. With one copy s_ij is 0 or 1; with more, the copies feed one learner, which moves by the
mean of what it would in each.

What is averaged must mean the same on both sides, so three kinds of numbers are told apart:

- weights, as they are;
- weights of critics, with the last layer in units of the return: every agent's returns are normalised by statistics of its own,
and these stay its own;
- statistics of inputs, as moments of the mixture of what both have seen: means, and means of squares. On the wire they are
mean and standard deviation, which lose less by rounding.

The optimisers' moments stay the agent's own, and so do the scales of cost advantages. Multipliers are averaged where all agents
share a budget, by a message of their own, in every round.

Source:
    gossip averaging: Xiao, Boyd, Lall 2005; of critics: Zhang et al. 2018 (arXiv:1802.08757), which averages after every step
    with any doubly stochastic weights; of policies: Zhang and Zavlanos 2019 (arXiv:1903.09255). We average after a round.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from node.learners.interface import Floats
from node.learners.on_policy.multipliers import SharedMultipliers
from node.numerics.critics import Critic, Critics
from node.numerics.networks import Trainer
from node.numerics.normalise import InputNorm
from scenarios.recipes import Recipe
from topology.graph.mixing import metropolis_weight

Array = NDArray[np.float64]


class Part(ABC):
    """Something of an agent that is averaged.

    Attributes:
        name: To what network it belongs; "": it is none, and not counted in how far agents are apart.
    """

    name = ""

    @abstractmethod
    def sent(self) -> Array:
        """Its numbers, (P,), as they are sent."""

    def averaged(self, sent: Array) -> Array:
        """What is averaged of the numbers sent, (P,)."""
        return sent

    @abstractmethod
    def move(self, change: Array) -> None:
        """Change what is averaged by (P,)."""


class Weights(Part):
    """The weights of a network, as they are."""

    def __init__(self, name: str, trainer: Trainer) -> None:
        self.name = name
        self._trainer = trainer

    def sent(self) -> Array:
        """See `Part.sent`."""
        weights: Array = self._trainer.weights.detach().double().numpy()
        return weights

    def move(self, change: Array) -> None:
        """See `Part.move`."""
        with torch.no_grad():
            self._trainer.weights.add_(torch.from_numpy(change.astype(np.float32)))


class ValueWeights(Part):
    """The weights of a critic, whose last layer is in units of the return."""

    def __init__(self, name: str, critic: Critic) -> None:
        self.name = name
        self._critic = critic

    def sent(self) -> Array:
        """See `Part.sent`."""
        return self._critic.in_units()

    def move(self, change: Array) -> None:
        """See `Part.move`."""
        self._critic.move(change)


class Moments(Part):
    """Mean and standard deviation of the inputs of a network; nothing where inputs are taken as they are."""

    def __init__(self, norm: InputNorm) -> None:
        self._norm = norm

    def sent(self) -> Array:
        """See `Part.sent`."""
        moments = self._norm.moments
        return np.zeros(0) if moments is None else moments.reshape(-1)

    def averaged(self, sent: Array) -> Array:
        """See `Part.averaged`: means, then means of squares."""
        mean, std = sent.reshape(2, -1)
        return np.concatenate((mean, std**2 + mean**2))

    def move(self, change: Array) -> None:
        """See `Part.move`."""
        mean, square = (self.averaged(self.sent()) + change).reshape(2, -1)
        self._norm.put(np.stack((mean, np.sqrt(np.maximum(square - mean**2, 0.0)))))


class Prices(Part):
    """Multipliers of a budget that all agents share, and estimates of what they are charged with."""

    def __init__(self, mults: SharedMultipliers) -> None:
        self._mults = mults

    def sent(self) -> Array:
        """See `Part.sent`."""
        return self._mults.agreed_on

    def move(self, change: Array) -> None:
        """See `Part.move`."""
        self._mults.move(change)


def parts_of(recipe: Recipe, actor: Trainer, actor_inputs: InputNorm, critics: Critics | None) -> list[Part]:
    """What a recipe averages of an agent, in the order in which it is sent."""
    found: list[Part] = []
    if recipe.averages_policy:
        found += [Weights("policy", actor), Moments(actor_inputs)]
    if recipe.averages_critic:
        assert critics is not None, "a critic that is averaged is the agent's own"
        found += [ValueWeights("critic", critic) for critic in critics.each]
        found.append(Moments(critics.inputs))
    return found


class Gossip:
    """One agent's part in a gossip.

    Args:
        parts: What is averaged, in the order in which it is sent.
        degree: With how many agents the agent has an edge.
    """

    def __init__(self, parts: Sequence[Part], degree: int) -> None:
        self._parts = parts
        self._degree = degree
        self._own: list[Array] = []

    def gives(self) -> Floats:
        """The agent's message: its degree, then its numbers."""
        self._own = [part.sent() for part in self._parts]
        return np.concatenate([[float(self._degree)], *self._own]).astype(np.float32)

    def takes(self, message: Floats, share: float) -> None:
        """Move towards a neighbour, whose message has come in this part of the copies; to be called after `gives`."""
        degree, *each = np.split(message.astype(np.float64), np.cumsum([1, *(own.size for own in self._own)])[:-1])
        weight = share * metropolis_weight(float(self._degree), float(degree[0]))
        for part, own, other in zip(self._parts, self._own, each, strict=True):
            if own.size and weight:
                part.move(weight * (part.averaged(other) - part.averaged(own)))

    def weights(self) -> Mapping[str, Floats]:
        """The weights that all agents are to agree on, by network, (P,) each."""
        found: dict[str, list[Array]] = {}
        for part in self._parts:
            if part.name:
                found.setdefault(part.name, []).append(part.sent())
        return {name: np.concatenate(each).astype(np.float32) for name, each in found.items()}
