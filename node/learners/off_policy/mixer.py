"""QMIX: every agent's values learnt together, as parts of one value of the team that rises with each of them.

Theory of operation. The mixer is Q_tot(s, q) = w₂(s)·elu(q·W₁(s) + b₁(s)) + v(s), where networks of the state make all four;
W₁ and w₂ are absolute values, and elu rises. So Q_tot never falls when some q^i rises, and the joint action that is best for
Q_tot is made of the actions that each agent likes best: agents act alone on what was learnt together. The price is what such
functions cannot say: that an agent's best action depends on another's.

The team: one network of own choices per agent, of what it senses itself, and the mixer, whose state is what all sense. Q_tot of
a sample regresses to

    r + gamma·Q̄_tot(s', each agent's argmax of its learning network at s')          nothing after a termination

where Q̄_tot is a lagging copy of all networks. An agent's part of it, its network and what its inputs are standardised by, is
one vector (`Team.policy`).

Choices that cannot be made are in no argmax. An agent that has ended before the others has nothing to choose: its q is 0 in
Q_tot, so its network learns nothing from such samples. The team goes on without it, so its end is no termination of Q_tot. Its
own limit of time is like an end, because the team is paid nothing for it any more.

Source: Rashid et al. 2018 (arXiv:1803.11485), sections 4 and C; sizes of the public code: 32 units, hypernetworks of one
hidden layer of 64 for the weights. We differ in networks of the present observation alone, one of its own for every agent,
and in Adam for RMSprop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from node.learners.off_policy.action_values import Lagging, Samples, network, trainer
from node.numerics.inherited import Inherited
from node.numerics.networks import MLP, torch_stream
from node.numerics.normalise import InputNorm
from node.numerics.policies import UNAVAILABLE
from node.numerics.replay import Replay
from node.numerics.seeds import Purpose
from scenarios.schema import Algorithm
from topology.deployment import Deployment
from topology.snapshot import Stateful

UNITS = 32
HYPER = (64,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """Where the team's state tells what agents can do.

    Attributes:
        masks: Columns of each agent's action mask; None: it can always make every choice.
        presence: Column of each agent that tells whether it takes part; (): all agents always do.
    """

    masks: tuple[slice | None, ...]
    presence: tuple[int, ...] = ()

    @classmethod
    def of(cls, deployment: Deployment) -> "Flags":
        """Those of a deployment: presence is the last number of an agent's block, the mask stands before it."""
        ends = np.cumsum(deployment.obs_dims).tolist()
        lasts = [end - deployment.presence for end in ends]
        masked = deployment.masked or (False,) * deployment.n_agents
        return cls(
            masks=tuple(
                slice(last - count, last) if has_mask else None
                for last, count, has_mask in zip(lasts, deployment.n_discrete, masked, strict=True)
            ),
            presence=tuple(lasts) if deployment.presence else (),
        )

    def available(self, seen: Float[Tensor, "B D"]) -> list[Tensor | None]:
        """By agent the choices that it can make, (B, A_i); None: all."""
        return [None if mask is None else seen[:, mask] > 0.5 for mask in self.masks]

    def there(self, seen: Float[Tensor, "B D"]) -> Tensor | None:
        """Which agents take part, (B, n); None: all."""
        return seen[:, list(self.presence)] > 0.5 if self.presence else None


class Mixer(nn.Module):
    """Q_tot of the agents' values and the state.

    Args:
        n_agents: n.
        state_width: D.
        generator: Draws the weights.
    """

    def __init__(self, n_agents: int, state_width: int, generator: torch.Generator) -> None:
        super().__init__()

        def network(hidden: tuple[int, ...], n_out: int) -> MLP:
            return MLP(
                state_width,
                hidden,
                n_out,
                activation="relu",
                layer_norm=False,
                input_layer_norm=False,
                head_gain=1.0,
                generator=generator,
            )

        self._inner = network(HYPER, n_agents * UNITS)
        self._inner_bias = network((), UNITS)
        self._outer = network(HYPER, UNITS)
        self._offset = network((UNITS,), 1)

    def forward(self, q: Float[Tensor, "B n"], state: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Q_tot of each sample."""
        inner = self._inner(state).abs().unflatten(1, (q.shape[1], UNITS))
        hidden = functional.elu(torch.einsum("bn,bnu->bu", q, inner) + self._inner_bias(state))
        team: Tensor = (hidden * self._outer(state).abs()).sum(1) + self._offset(state).squeeze(1)
        return team


class TeamValue(nn.Module):
    """Q_tot of all agents' choices.

    Args:
        widths: d_i, of each agent's block of the state.
        n_discrete: A_i.
        algorithm: Hyperparameters.
        seed: Of the run; an agent's network begins as in the agent's process.
    """

    def __init__(self, widths: Sequence[int], n_discrete: Sequence[int], algorithm: Algorithm, seed: int) -> None:
        super().__init__()
        self._widths = list(widths)
        self.own = nn.ModuleList([
            network(algorithm, width, count, torch_stream(seed, Purpose.INIT, agent))
            for agent, (width, count) in enumerate(zip(widths, n_discrete, strict=True))
        ])  # fmt: skip
        self.mixer = Mixer(len(self._widths), sum(widths), torch_stream(seed, Purpose.INIT, len(self._widths)))

    def liked(self, state: Float[Tensor, "B D"], available: Sequence[Tensor | None] = ()) -> Int[Tensor, "B n"]:
        """What each agent likes best of what it can choose (`Flags.available`), the first among the best."""
        with torch.no_grad():
            values = self._values(state)
            for agent, mask in enumerate(available):
                if mask is not None:
                    values[agent] = values[agent].masked_fill(~mask, UNAVAILABLE)
            return torch.stack([each.argmax(1) for each in values], dim=1)

    def forward(
        self, state: Float[Tensor, "B D"], choice: Int[Tensor, "B n"], there: Bool[Tensor, "B n"] | None = None
    ) -> Float[Tensor, " B"]:
        """Q_tot of each sample, of the agents that are `there`; None: all."""
        each = [values.gather(1, choice[:, agent, None]) for agent, values in enumerate(self._values(state))]
        q = torch.cat(each, dim=1)
        team: Tensor = self.mixer(q if there is None else q * there, state)
        return team

    def _values(self, state: Tensor) -> list[Tensor]:
        return [own(block) for own, block in zip(self.own, state.split(self._widths, dim=1), strict=True)]


class Team(Stateful):
    """All agents' networks, the mixer, and the replay that they learn from.

    Args:
        widths: d_i.
        n_discrete: A_i.
        algorithm: Hyperparameters.
        seed: Of the run.
        flags: What of the state tells what agents can do; None: nothing.
    """

    STATE = ("_trainer", "_lagging", "_norm", "_replay")

    def __init__(
        self, widths: Sequence[int], n_discrete: Sequence[int], algorithm: Algorithm, seed: int, flags: Flags | None = None
    ) -> None:
        self._algorithm = algorithm
        self._flags = Flags(masks=(None,) * len(widths)) if flags is None else flags
        self._ends = np.cumsum(widths)
        self._norm = InputNorm(sum(widths), running=algorithm.input_norm == "running")
        self.value = TeamValue(widths, n_discrete, algorithm, seed)
        self._trainer = trainer(self.value, algorithm, algorithm.critic_lr)
        self._lagging = Lagging(self.value, algorithm.off_policy.target_keep)
        self._replay = Replay(algorithm.off_policy.buffer)
        self._loss = 0.0

    def take(self, fresh: Samples) -> None:
        """Keep transitions of the team: observations (B, D) of all agents, and their actions (B, n)."""
        if len(fresh.reward):
            self._replay.add(fresh.observation, fresh.action, fresh.reward, fresh.following, fresh.terminated)

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        self._trainer.decay(fraction)

    def learn(self, minibatches: int, draw: np.random.Generator) -> None:
        """One step of all networks per minibatch."""
        total = 0.0
        for _ in range(minibatches):
            total += self.step(*self._replay.sample(self._algorithm.off_policy.batch, draw))
        self._loss = total / max(minibatches, 1)

    def step(
        self,
        observation: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        following: NDArray[np.float32],
        terminated: NDArray[np.bool_],
    ) -> float:
        """Learn from one minibatch, columns as in `Samples`; its loss."""
        onward = self._algorithm.gamma * (~torch.from_numpy(terminated)).to(torch.float32)
        seen, then = torch.from_numpy(observation), torch.from_numpy(following)
        state, after = self._norm(seen), self._norm(then)
        liked = self.value.liked(after, self._flags.available(then))
        target = torch.from_numpy(reward) + onward * self._lagging(after, liked, self._flags.there(then))
        loss = (self.value(state, torch.from_numpy(action).long(), self._flags.there(seen)) - target).square().mean()
        loss.backward()
        self._trainer.step()
        self._lagging.follow()
        return float(loss.detach())

    def end(self, observations: NDArray[np.float32]) -> None:
        """A round is over: let the input statistics take its observations in, (B, D)."""
        if len(observations):
            self._norm.update(observations)

    def policy(self, agent: int) -> NDArray[np.float32]:
        """What an agent acts by: its network's weights, then offsets and scales of its inputs; `policy_width` numbers."""
        weights = nn.utils.parameters_to_vector(self.value.own[agent].parameters()).detach()
        width = self._ends[agent] - (self._ends[agent - 1] if agent else 0)
        inputs = self._norm.weights()[:, self._ends[agent] - width : self._ends[agent]]
        return np.asarray(torch.cat((weights, inputs.flatten())).numpy(), np.float32)

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the networks and the statistics of another run's team.

        Raises:
            ValueError: they do not fit.
        """
        self._trainer.take(theirs.tensor("team", tuple(self._trainer.weights.shape)))
        self._lagging.catch_up()
        self._norm.inherit(theirs.statistics("inputs"), theirs.inputs, theirs.samples)

    def metrics(self) -> Mapping[str, float]:
        """Mean loss of Q_tot, and how many transitions there are."""
        return {"value_loss": self._loss, "replay": float(len(self._replay))}

    def weights(self) -> dict[str, Tensor]:
        """All networks as one vector, and the statistics of the state."""
        return {"team": self._trainer.weights.detach(), "inputs": self._norm.weights()}
