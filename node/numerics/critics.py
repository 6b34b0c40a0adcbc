"""Value functions of the reward and of every cost, and how they learn from a rollout.

An agent's own, or, with a central critic, the coordinator's: nothing here knows which. In a round `begin` takes the
rollout in, `advantages` estimates, `adopt` sets the estimates' returns as targets, `train` regresses to them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.numerics.advantage import gae
from node.numerics.inherited import Inherited
from node.numerics.losses import value_loss
from node.numerics.networks import MLP, Trainer, chunks, torch_stream
from node.numerics.normalise import InputNorm, ValueNorm
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose
from scenarios.schema import Algorithm
from scenarios.schema.rollout import Extensions
from topology.snapshot import Stateful

Floats = NDArray[np.float32]
Columns = NDArray[np.intp] | slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of one agent's learning problem.

    Attributes:
        agent: Agent id.
        seed: Seed of the run.
        steps: T.
        copies: E.
        rounds: Rounds in the run.
        extended: Where its budget was extended, as in `Budget`.
        actor_columns: Columns of the observation that the actor takes.
        critic_columns: Columns that the critics take.
        actor_width: How many those are.
        critic_width: How many those are.
        act_dim: A; 1 where the action is a choice.
        n_discrete: C, how many actions there are to choose from; 0 where actions are continuous.
        one_hot: Columns of each one-hot part of the observation, in the order of columns; the others are numbers.
        mask: Columns of the agent's action mask; None: it has none.
        actor_mask: The same among the columns that the actor takes.
        presence: Column that tells whether the agent takes part; None: it always does.
        cost_limits: b_u, one per cost; empty where the recipe ignores costs.
        cut_copies: Copies whose first episode is cut short and counts in no statistics.
        n_agents: n; a learner needs it only where agents take turns.
        reach: Agents whose ratios may ever multiply this agent's advantage, itself included.
        degree: Agents with which the agent has an edge.
    """

    agent: int
    seed: int
    steps: int
    copies: int
    rounds: int
    extended: Extensions = ()
    actor_columns: Columns
    critic_columns: Columns
    actor_width: int
    critic_width: int
    act_dim: int
    n_discrete: int = 0
    one_hot: tuple[slice, ...] = ()
    mask: slice | None = None
    actor_mask: slice | None = None
    presence: int | None = None
    cost_limits: tuple[float, ...]
    cut_copies: tuple[int, ...] = ()
    n_agents: int = 1
    reach: int = 1
    degree: int = 0

    def for_actor(self, observation: Floats) -> Floats:
        """What the actor takes of observations (..., D), row after row."""
        return _picked(observation, self.actor_columns)

    def for_critics(self, observation: Floats) -> Floats:
        """What the critics take of observations (..., D), row after row.

        An agent's own presence is 1 in all that a critic learns from. It is 1 here too where the agent's time was up.
        """
        if self.presence is not None:
            observation = observation.copy()
            observation[..., self.presence] = 1.0
        return _picked(observation, self.critic_columns)

    def available(self, observation: Floats) -> NDArray[np.bool_] | None:
        """The agent's action mask in observations (..., D), (B, C); None: it has none."""
        return None if self.mask is None else _picked(observation, self.mask) > 0.5

    def takes_part(self, observation: Floats) -> NDArray[np.bool_] | None:
        """In which of observations (..., D) the agent takes part, (B,); None: in all."""
        return None if self.presence is None else observation[..., self.presence].reshape(-1) == 1.0


def _picked(observation: Floats, columns: Columns) -> Floats:
    """(..., D) -> (B, columns), laid out the same whichever way the columns are named.

    numpy lays out columns picked by number one after the other. Products and sums of arrays so laid out round differently.
    """
    return np.ascontiguousarray(observation.reshape(-1, observation.shape[-1])[:, columns])


class Critic(Stateful):
    """A value function of the reward or of one cost: network, optimiser, return statistics."""

    STATE = ("trainer", "norm")

    def __init__(self, shape: Shape, algorithm: Algorithm, index: int, norm: ValueNorm) -> None:
        self.net = MLP(
            shape.critic_width,
            algorithm.hidden,
            1,
            activation=algorithm.activation,
            layer_norm=algorithm.layer_norm,
            input_layer_norm=algorithm.input_norm == "layer",
            head_gain=1.0,
            # critics that neighbours average start alike
            generator=torch_stream(shape.seed, Purpose.INIT, 0 if algorithm.recipe.averages_critic else shape.agent, 1 + index),
        )
        self.trainer = Trainer(
            self.net,
            lr=algorithm.critic_lr,
            eps=algorithm.adam_eps,
            max_grad_norm=algorithm.max_grad_norm,
            name=f"the critic of cost {index - 1}" if index else "the critic",
        )
        self.norm = norm
        self._rescales = "fixed_value_head" not in algorithm.quirks
        self.old = torch.zeros(0)
        self.target = torch.zeros(0)

    def in_units(self) -> NDArray[np.float64]:
        """Its weights, (P,), with a last layer that predicts in units of the return instead of normalised ones."""
        weights = self.trainer.weights.detach().double().numpy()
        head = self._head
        weights[head] *= self.norm.sigma
        weights[-1] += self.norm.mu
        return weights

    def move(self, change: NDArray[np.float64]) -> None:
        """Move its weights by (P,), given as `in_units` has them; the return statistics stay."""
        own = change.copy()
        own[self._head] /= self.norm.sigma
        with torch.no_grad():
            self.trainer.weights.add_(torch.from_numpy(own.astype(np.float32)))

    @property
    def _head(self) -> slice:
        return slice(-self.net.head.weight.numel() - 1, None)  # the layer that was made last, and its bias

    def adopt(self, old: NDArray[np.float64], returns: NDArray[np.float64], there: NDArray[np.bool_] | None = None) -> None:
        """Take in a round's returns (B,) and set the targets; `old` are the predictions (B,) in the old units.

        Returns count where the agent is `there`, (B,); None: all.
        """
        scale, shift = self.norm.update(returns if there is None else returns[there])
        if not self._rescales:
            scale, shift = 1.0, 0.0
        with torch.no_grad():
            self.net.head.weight.mul_(scale)
            self.net.head.bias.mul_(scale).add_(shift)
        self.old = torch.from_numpy((old * scale + shift).astype(np.float32))
        self.target = torch.from_numpy(self.norm.normalise(returns).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one critic makes of one signal.

    Attributes:
        advantage: A, (B,), in the signal's units.
        returns: A + V, (B,), in the signal's units.
        predicted: V, (B,), in the critic's units.
    """

    advantage: NDArray[np.float64]
    returns: NDArray[np.float64]
    predicted: NDArray[np.float64]


class Critics(Stateful):
    """The value critic and the cost critics of one problem.

    Args:
        shape: Sizes; the critics' columns, width and number count.
        algorithm: Hyperparameters.
    """

    STATE = ("_norm", "_critics")

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        self._shape = shape
        self._algorithm = algorithm
        n = 1 + len(shape.cost_limits)
        norms = [ValueNorm(enabled=algorithm.value_norm, beta=algorithm.value_norm_beta) for _ in range(n)]
        if "shared_return_norm" in algorithm.quirks:
            norms = norms[:1] * n
        self._critics = [Critic(shape, algorithm, index, norm) for index, norm in enumerate(norms)]
        self._norm = InputNorm(shape.critic_width, running=algorithm.input_norm == "running")
        self._x = self._cut_x = torch.zeros(0)
        self._there: NDArray[np.bool_] | None = None  # samples in which the agent takes part; None: all
        self._losses = np.zeros(len(self._critics))

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        for critic in self._critics:
            critic.trainer.decay(fraction)

    def begin(self, rollout: Rollout) -> None:
        """Take in what was seen."""
        self._there = self._shape.takes_part(rollout.observation)
        self._x = self._norm(torch.from_numpy(self._shape.for_critics(rollout.observation)))
        self._cut_x = self._norm(torch.from_numpy(self._shape.for_critics(rollout.cut_observation)))

    def advantages(
        self, rollout: Rollout, reward: NDArray[np.float32], weight: NDArray[np.float64] | None = None
    ) -> list[Estimate]:
        """Estimates of the reward (T, E) and of each cost; `weight` (T, E) as in `gae`."""
        signals = [reward, *(rollout.cost[:, :, u] for u in range(len(self._shape.cost_limits)))]
        return [self._estimate(critic, rollout, signal, weight) for critic, signal in zip(self._critics, signals, strict=True)]

    def adopt(self, estimates: Sequence[Estimate]) -> None:
        """Set the estimated returns as targets."""
        for critic, estimate in zip(self._critics, estimates, strict=True):
            critic.adopt(estimate.predicted, estimate.returns, self._there)

    def train(self, minibatches: Iterable[Tensor]) -> Iterator[None]:
        """Regress to the targets; pauses after every minibatch of rows."""
        self._losses[:] = 0.0
        there = None if self._there is None else torch.from_numpy(self._there)
        for rows in minibatches:
            if there is not None:
                rows = rows[there[rows]]
                if not len(rows):
                    continue
            for place, critic in enumerate(self._critics):
                self._losses[place] += self._step(critic, rows)
            yield

    def end(self, rollout: Rollout) -> None:
        """Let the input statistics take in the round."""
        inputs, there = self._shape.for_critics(rollout.observation), self._shape.takes_part(rollout.observation)
        self._norm.update(inputs if there is None else inputs[there])
        self._x = self._cut_x = torch.zeros(0)

    def metrics(self) -> Mapping[str, float]:
        """Mean loss of each critic over the last training, by name."""
        first, *rest = self._losses / (self._algorithm.epochs * self._algorithm.minibatches)
        return {"value_loss": float(first)} | {f"cost_value_loss_{u}": float(loss) for u, loss in enumerate(rest)}

    @property
    def each(self) -> Sequence[Critic]:
        """The value critic, then one per cost."""
        return self._critics

    @property
    def inputs(self) -> InputNorm:
        """The statistics of their inputs."""
        return self._norm

    def weights(self) -> dict[str, Tensor]:
        """Everything learnt, by name, in a fixed order."""
        tensors = {}
        for index, critic in enumerate(self._critics):
            tensors[f"critic_{index}"] = critic.trainer.weights.detach()
            tensors[f"critic_{index}_returns"] = torch.tensor([critic.norm.mu, critic.norm.sigma], dtype=torch.float64)
        tensors["critic_inputs"] = self._norm.weights()
        return tensors

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the critics of another run.

        Raises:
            ValueError: they do not fit.
        """
        for index, critic in enumerate(self._critics):
            critic.trainer.take(theirs.network(f"critic_{index}", critic.net, critic.net.first))
            critic.norm.begin(*theirs.tensor(f"critic_{index}_returns", (2,)).tolist())
        self._norm.inherit(theirs.statistics("critic_inputs"), theirs.inputs, theirs.samples)

    def _estimate(
        self, critic: Critic, rollout: Rollout, signal: NDArray[np.float32], weight: NDArray[np.float64] | None
    ) -> Estimate:
        algorithm = self._algorithm
        with torch.no_grad():
            predicted = critic.net.everywhere(self._x, algorithm.chunk).squeeze(-1).double().numpy()
            at_cuts = critic.net.everywhere(self._cut_x, algorithm.chunk).squeeze(-1).double().numpy()
        value = critic.norm.denormalise(predicted).reshape(signal.shape)
        next_value = np.concatenate((value[1:], np.zeros_like(value[:1])))
        cuts = rollout.cuts()
        next_value[cuts[:, 0], cuts[:, 1]] = critic.norm.denormalise(at_cuts)
        terminated, truncated = rollout.own_ends(self._shape.presence)
        advantage = gae(
            signal,
            value,
            next_value,
            terminated,
            truncated,
            gamma=algorithm.gamma,
            lam=algorithm.gae_lambda,
            bootstrap=algorithm.truncation == "bootstrap",
            weight=weight,
        )
        return Estimate(advantage.reshape(-1), (advantage + value).reshape(-1), predicted)

    def _step(self, critic: Critic, rows: Tensor) -> float:
        algorithm = self._algorithm
        total = 0.0
        for chunk in chunks(rows, algorithm.chunk):
            loss = value_loss(
                critic.net.forward(self._x.index_select(0, chunk)).squeeze(-1),
                critic.old.index_select(0, chunk),
                critic.target.index_select(0, chunk),
                value_clip=algorithm.value_clip,
                huber_delta=algorithm.huber_delta,
                signed="signed_huber" in algorithm.quirks,
            )
            if len(chunk) < len(rows):
                loss = loss * (len(chunk) / len(rows))
            loss.backward()
            total += loss.item()
        critic.trainer.step()
        return total
