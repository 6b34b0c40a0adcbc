"""What actions are worth, and how that is learnt from replay: in tables, by double Q-learning, by twin delayed critics.

Theory of operation. An `ActionValues` knows which action it likes best at a observation, takes transitions in, and learns from
minibatches of them. `Tabular` numbers the observations it meets and leaves the arithmetic to `node.learners.off_policy.tables`.
`DoubleQ` has a network with one output per choice, `TwinDelayed` a deterministic policy and two critics of observation and
action. Each of the two may be given an `Ideal`, which replaces the state that followed by the best one that the agent's own
action could have led to: Q-learning then becomes I2Q, and nothing else changes.

Networks that targets are made of follow the learning ones slowly (`Lagging`). The states in replay are raw; they are
standardised when they are used.

Sources: double Q-learning, van Hasselt et al. 2016 (arXiv:1509.06461); twin delayed critics, Fujimoto et al. 2018
(arXiv:1802.09477); I2Q, Jiang and Lu 2022. Its three losses, with the signs that make sense: the forward model f maximises
alpha/mean|Q_ss|·Q_ss(s, f) - |f - s'|², f predicts a change; Q_ss regresses to r + gamma·Q_ss(s', f(s', a'*)) with the real s';
Q to r + gamma·max_a' Q(s'*, a'), where s'* is f's guess if Q_ss prefers it to what really followed, which then stays.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from node.learners.off_policy.tables import IdealQ, Transitions, iterate, replay
from node.numerics.inherited import Inherited
from node.numerics.networks import MLP, Trainer
from node.numerics.normalise import InputNorm, Standardised
from node.numerics.policies import UNAVAILABLE
from node.numerics.replay import Replay
from scenarios.schema import Algorithm
from topology.snapshot import State, Stateful

Floats = NDArray[np.float32]
MAX_ROWS = 1 << 20  # observations that a table holds: with 5 actions 40 MiB, and what the observations themselves take
SMOOTHING_CLIP = 0.5  # of the bound; how far noise may push a target action, as in the TD3 paper


@dataclass(frozen=True, slots=True)
class Samples:
    """Transitions of one agent.

    Attributes:
        observation: (B, D).
        action: (B, A).
        reward: (B,).
        following: Observation after it, (B, D), before any restart.
        terminated: (B,).
        is_first: (B,), whether an episode begins with it; only recurrent networks need it.
    """

    observation: Floats
    action: Floats
    reward: Floats
    following: Floats
    terminated: NDArray[np.bool_]
    is_first: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def present(self, there: NDArray[np.bool_] | None) -> "Samples":
        """Those in which the agent took part, (B,); None: all."""
        if there is None:
            return self
        return Samples(
            self.observation[there], self.action[there], self.reward[there], self.following[there], self.terminated[there],
            self.is_first[there],
        )  # fmt: skip


class ActionValues(Stateful, ABC):
    """Values of actions, and a replay of what they are learnt from."""

    replay: Replay

    @abstractmethod
    def best(self, observation: Floats) -> Floats:
        """The action liked best at each observation, (E, D) -> (E, A)."""

    def forget(self, ended: NDArray[np.bool_]) -> None:
        """Episodes have ended in some copies, (E,): nothing that was seen in them is remembered."""

    @abstractmethod
    def take(self, fresh: Samples) -> None:
        """Keep transitions for replay."""

    @abstractmethod
    def learn(self, minibatches: int, draw: np.random.Generator) -> Iterator[None]:
        """Learn from that many minibatches; pauses after every one."""

    @abstractmethod
    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""

    @abstractmethod
    def end(self, observations: Floats) -> None:
        """A round is over: let input statistics take its observations in, (B, D)."""

    @abstractmethod
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the last learning, by name."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """All that is learnt, by name, in a fixed order."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what acting needs from stored weights.

        Raises:
            ValueError: They do not fit; the text names which.
        """

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the values of another run.

        Raises:
            ValueError: they do not fit.
        """
        raise ValueError(f"{type(self).__name__} cannot begin with the values of another run")


def fitting(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """A stored tensor.

    Raises:
        ValueError: It is missing or has another shape.
    """
    if name not in tensors or tensors[name].shape != shape:
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        raise ValueError(f"{name} needs shape {shape}, found {found}")
    return tensors[name]


class Tabular(ActionValues):
    """Tables: one row per observation ever met.

    Args:
        n_discrete: A.
        algorithm: Hyperparameters.
        draw: For values at the start, U(-½, ½), row by row as observations are met.
        mask: Columns of the observation that say which actions can be taken; None: all can.
    """

    STATE = ("_q", "_ideal", "_observations", "_draw", "replay")

    def __init__(self, n_discrete: int, algorithm: Algorithm, draw: np.random.Generator, mask: slice | None = None) -> None:
        self._mask = mask
        self._algorithm = algorithm
        self._n_discrete = n_discrete
        self._draw = draw
        self._rows: dict[bytes, int] = {}
        self._q = np.zeros((0, n_discrete))
        self._ideal = IdealQ(self._q, draw) if algorithm.recipe.target == "ideal_q" else None
        self._observations = np.zeros((0, 0), np.float32)
        self._change = 0.0
        self._fraction = 1.0
        self.replay = Replay(algorithm.off_policy.buffer)

    def best(self, observation: Floats) -> Floats:
        """The first among the best; where nothing is known, what the new row happens to like."""
        rows = self._number(observation)  # which may make the table grow
        return np.asarray(self._q_table()[rows].argmax(axis=1, keepdims=True), np.float32)

    def take(self, fresh: Samples) -> None:
        """Keep transitions, as rows."""
        told = Transitions(
            state=self._number(fresh.observation),
            action=fresh.action[:, 0].astype(np.intp),
            reward=fresh.reward.astype(np.float64),
            following=self._number(fresh.following),
            terminated=fresh.terminated,
        )
        place = np.zeros(len(told.state), np.intp) if self._ideal is None else self._ideal.note(told)
        self.replay.add(told.state, told.action, told.reward, told.following, told.terminated, place)

    def learn(self, minibatches: int, draw: np.random.Generator) -> Iterator[None]:
        """Minibatches with `table_step`, or with a `turn_accuracy` all of the replay to its fixed point."""
        algorithm, settings = self._algorithm, self._algorithm.off_policy
        before = self._q_table().copy()
        if settings.turn_accuracy is not None:
            told, _ = _told(self.replay.everything())
            iterate(
                self._q_table(), told, gamma=algorithm.gamma, accuracy=settings.turn_accuracy, sweeps=settings.turn_sweeps
            )  # fmt: skip
            yield
        else:
            size = self._fraction * settings.table_step
            for _ in range(minibatches):
                told, place = _told(self.replay.sample(settings.batch, draw))
                if self._ideal is None:
                    replay(self._q, told, gamma=algorithm.gamma, step=size)
                else:
                    self._ideal.replay(told, place, gamma=algorithm.gamma, step=size)
                yield
        self._change = float(np.abs(self._q_table() - before).max())

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        self._fraction = fraction

    def end(self, observations: Floats) -> None:
        """Nothing: tables know no statistics."""

    def metrics(self) -> Mapping[str, float]:
        """How far the value moved that moved farthest, and how many observations there are."""
        return {"table_change": self._change, "table_rows": float(len(self._rows))}

    def weights(self) -> dict[str, Tensor]:
        """Q and the observations of its rows."""
        return {"q": torch.from_numpy(self._q_table().copy()), "observations": torch.from_numpy(self._observations.copy())}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take Q and its observations.

        Raises:
            ValueError: One is missing, or they do not fit each other.
        """
        if "sights" in tensors:  # as older runs called them
            tensors = {"observations": tensors["sights"], **tensors}
        for name in ("q", "observations"):
            if name not in tensors:
                raise ValueError(f"{name} is missing")
        rows = len(tensors["observations"])
        q = fitting(tensors, "q", (rows, self._n_discrete)).numpy()
        self._number(tensors["observations"].numpy())
        self._q_table()[:] = q

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the tables of another run, which has the same inputs: rows are whole observations."""
        self.load(theirs.tensors)

    def restore(self, state: State) -> None:
        """Take the state of tables of the same scenario."""
        super().restore(state)
        self._rows = {observation.tobytes(): row for row, observation in enumerate(self._observations)}

    def _q_table(self) -> NDArray[np.float64]:
        return self._q if self._ideal is None else self._ideal.q

    def _number(self, observations: Floats) -> NDArray[np.intp]:
        """The rows of observations (B, D); those never met get one each.

        Raises:
            ValueError: There are too many for a table.
        """
        rows = np.empty(len(observations), np.intp)
        fresh = []
        for place, observation in enumerate(observations):
            key = observation.tobytes()
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = len(self._rows)
                fresh.append(observation)
            rows[place] = row
        if fresh:
            if len(self._rows) > MAX_ROWS:
                raise ValueError(
                    f"algorithm.off_policy.representation: got 'table'; more than {MAX_ROWS} observations were met, use network"
                )
            values = self._draw.uniform(-0.5, 0.5, (len(fresh), self._n_discrete))
            if self._mask is not None:  # below all values, and nothing is ever learnt of it: no maximum finds it
                values[np.stack(fresh)[:, self._mask] < 0.5] = UNAVAILABLE
            self._observations = (
                np.stack(fresh) if not len(self._observations) else np.concatenate((self._observations, np.stack(fresh)))
            )
            if self._ideal is None:
                self._q = np.concatenate((self._q, values))
            else:
                self._ideal.extend(values)
        return rows


def _told(columns: tuple[NDArray[np.generic], ...]) -> tuple[Transitions, NDArray[np.intp]]:
    """What a table's replay keeps, as it was put in."""
    state, action, reward, following, terminated, place = columns
    told = Transitions(
        state=state.astype(np.intp, copy=False),
        action=action.astype(np.intp, copy=False),
        reward=reward.astype(np.float64, copy=False),
        following=following.astype(np.intp, copy=False),
        terminated=terminated.astype(np.bool_, copy=False),
    )
    return told, place.astype(np.intp, copy=False)


class Lagging(Stateful):
    """A copy of a module that follows it slowly.

    Args:
        module: What it follows.
        keep: How much of itself it keeps at each `follow`.
    """

    STATE = ("_mine",)

    def __init__(self, module: nn.Module, keep: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self._pairs = list(zip(self.module.parameters(), module.parameters(), strict=True))
        self._keep = keep

    @property
    def _mine(self) -> list[nn.Parameter]:
        return [mine for mine, _ in self._pairs]

    def follow(self) -> None:
        """One step behind the module."""
        with torch.no_grad():
            for mine, theirs in self._pairs:
                mine.lerp_(theirs, 1.0 - self._keep)

    def catch_up(self) -> None:
        """Be what the module is."""
        with torch.no_grad():
            for mine, theirs in self._pairs:
                mine.copy_(theirs)

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """The copy's outputs."""
        with torch.no_grad():
            output: Tensor = self.module(*inputs)
        return output


def network(algorithm: Algorithm, n_in: int, n_out: int, generator: torch.Generator) -> MLP:
    """A network in the scenario's sizes; its last layer starts small, so that all actions are worth about 0."""
    return MLP(
        n_in,
        algorithm.hidden,
        n_out,
        activation=algorithm.activation,
        layer_norm=algorithm.layer_norm,
        input_layer_norm=algorithm.input_norm == "layer",
        head_gain=algorithm.head_gain,
        generator=generator,
    )


def trainer(module: nn.Module, algorithm: Algorithm, lr: float) -> Trainer:
    """Adam in the scenario's settings."""
    return Trainer(module, lr=lr, eps=algorithm.adam_eps, max_grad_norm=algorithm.max_grad_norm)


@dataclass(frozen=True, slots=True)
class Batch:
    """A minibatch as tensors; `action` is what networks take: one-hot where it is a choice."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    onward: Tensor  # gamma, or 0 where the episode terminated


class Ideal(Stateful):
    """I2Q's forward model and values of pairs of states.

    Args:
        width: D.
        act_dim: Width of the action as networks take it.
        algorithm: Hyperparameters.
        norm: Of observations.
        generator: Draws the weights.
    """

    STATE = ("_model_trainer", "_qss_trainer", "_lagging")

    def __init__(self, width: int, act_dim: int, algorithm: Algorithm, norm: InputNorm, generator: torch.Generator) -> None:
        self._settings = algorithm.off_policy
        self._norm = norm
        self.model = network(algorithm, width + act_dim, width, generator)
        self.qss = network(algorithm, 2 * width, 1, generator)
        self._model_trainer = trainer(self.model, algorithm, algorithm.critic_lr)
        self._qss_trainer = trainer(self.qss, algorithm, algorithm.critic_lr)
        self._lagging = Lagging(self.qss, self._settings.target_keep)

    def guess(self, observation: Tensor, action: Tensor) -> Tensor:
        """f(s, a): the state that the model hopes for, (B, D)."""
        change: Tensor = self.model(torch.cat((self._norm(observation), action), 1))
        return observation + change

    def worth(self, observation: Tensor, following: Tensor) -> Tensor:
        """Q_ss(s, s'), (B,)."""
        value: Tensor = self.qss(self._pair(observation, following)).squeeze(1)
        return value

    def successor(self, batch: Batch) -> Tensor:
        """s'*: the model's guess where it is worth more than what followed, (B, D)."""
        with torch.no_grad():
            hoped = self.guess(batch.observation, batch.action)
            better = self.worth(batch.observation, hoped) > self.worth(batch.observation, batch.following)
            return torch.where(better[:, None], hoped, batch.following)

    def learn(self, batch: Batch, next_action: Tensor) -> None:
        """A step of both; `next_action` is the one liked best at what followed."""
        with torch.no_grad():
            hoped = self.guess(batch.following, next_action)
            target = batch.reward + batch.onward * self._lagging(self._pair(batch.following, hoped)).squeeze(1)
        (self.worth(batch.observation, batch.following) - target).square().mean().backward()
        self._qss_trainer.step()
        hoped = self.guess(batch.observation, batch.action)
        worth = self.worth(batch.observation, hoped)
        price = self._settings.ideal_weight / worth.detach().abs().mean().clamp_min(1e-8)
        loss = (hoped - batch.following).square().mean() - price * worth.mean()  # mean over columns too, as the public code
        loss.backward()
        self._model_trainer.step()
        self._qss_trainer.gradient.zero_()  # Q_ss is only asked here
        self._lagging.follow()

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        self._model_trainer.decay(fraction)
        self._qss_trainer.decay(fraction)

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the two networks of another run, which has the same inputs: a guess is a whole observation.

        Raises:
            ValueError: they do not fit.
        """
        for name, trainer_ in (("model", self._model_trainer), ("q_ss", self._qss_trainer)):
            trainer_.take(theirs.tensor(name, tuple(trainer_.weights.shape)))
        self._lagging.catch_up()

    def _pair(self, observation: Tensor, following: Tensor) -> Tensor:
        return torch.cat((self._norm(observation), self._norm(following)), 1)


class Networked(ActionValues):
    """What the two kinds of networks have in common: raw replay, standardised inputs, the ideal successor."""

    STATE: ClassVar[tuple[str, ...]] = ("_learning", "_followers", "_norm", "_ideal", "replay")

    def __init__(self, width: int, act_dim: int, algorithm: Algorithm, generator: torch.Generator) -> None:
        self._algorithm = algorithm
        self._norm = InputNorm(width, running=algorithm.input_norm == "running")
        self._ideal = Ideal(width, act_dim, algorithm, self._norm, generator) if algorithm.recipe.target == "ideal_q" else None
        self._loss = 0.0
        self.replay = Replay(algorithm.off_policy.buffer)

    def take(self, fresh: Samples) -> None:
        """Keep transitions as they are."""
        self.replay.add(fresh.observation, fresh.action, fresh.reward, fresh.following, fresh.terminated)

    def learn(self, minibatches: int, draw: np.random.Generator) -> Iterator[None]:
        """One step of every network per minibatch."""
        total = 0.0
        for _ in range(minibatches):
            total += self._step(self._batch(self.replay.sample(self._algorithm.off_policy.batch, draw)), draw)
            yield
        self._loss = total / max(minibatches, 1)

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        for each in (*self._learning, *(() if self._ideal is None else (self._ideal,))):
            each.decay(fraction)

    def end(self, observations: Floats) -> None:
        """Let the input statistics take a round in."""
        self._norm.update(observations)

    def metrics(self) -> Mapping[str, float]:
        """Mean loss of Q."""
        return {"value_loss": self._loss}

    @abstractmethod
    def module(self) -> nn.Module:
        """What actions follow from, with the statistics of its inputs."""

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the networks of another run; those that lag behind begin where they are."""
        for name, (each, net, more) in self._networks.items():
            each.take(theirs.network(name, net, net.first, more=more))
        for follower in self._followers:
            follower.catch_up()
        self._norm.inherit(theirs.statistics("inputs"), theirs.inputs, theirs.samples)
        if self._ideal is not None:
            self._ideal.inherit(theirs)

    @property
    @abstractmethod
    def _networks(self) -> Mapping[str, tuple[Trainer, MLP, int]]:
        """The networks that learn, but the ideal's, by the names of their weights; and how many inputs are actions."""

    @property
    def _learning(self) -> list[Trainer]:
        return [each for each, _, _ in self._networks.values()]

    @property
    @abstractmethod
    def _followers(self) -> list[Lagging]:
        """The networks that follow them."""

    @abstractmethod
    def _step(self, batch: Batch, draw: np.random.Generator) -> float:
        """Learn from one minibatch; Q's loss."""

    @abstractmethod
    def _fed(self, action: Tensor) -> Tensor:
        """Actions (B, A) as networks take them."""

    def _batch(self, columns: tuple[NDArray[np.generic], ...]) -> Batch:
        observation, action, reward, following, terminated = (torch.from_numpy(column) for column in columns)
        onward = self._algorithm.gamma * (~terminated).to(torch.float32)
        return Batch(observation, self._fed(action), reward, following, onward)


class DoubleQ(Networked):
    """A network with one value per choice, learnt by double Q-learning.

    Args:
        width: D.
        n_discrete: A.
        algorithm: Hyperparameters.
        generator: Draws the weights.
        mask: Columns of the observation that say which actions can be taken; None: all can.
    """

    def __init__(
        self, width: int, n_discrete: int, algorithm: Algorithm, generator: torch.Generator, mask: slice | None = None
    ) -> None:
        super().__init__(width, n_discrete, algorithm, generator)
        self._mask = mask
        self._n_discrete = n_discrete
        self._net = network(algorithm, width, n_discrete, generator)
        self._trainer = trainer(self._net, algorithm, algorithm.critic_lr)
        self._lagging = Lagging(self._net, algorithm.off_policy.target_keep)

    def best(self, observation: Floats) -> Floats:
        """The first among the best choices."""
        with torch.inference_mode():
            seen = torch.from_numpy(observation)
            return np.asarray(self._liked(self._net(self._norm(seen)), seen).numpy(), np.float32)

    def module(self) -> nn.Module:
        """Values of choices."""
        return Standardised(self._norm, self._net)

    def weights(self) -> dict[str, Tensor]:
        """The network and its inputs' statistics, and the ideal's two networks."""
        tensors = {"q": self._trainer.weights.detach(), "inputs": self._norm.weights()}
        return tensors | ideal_weights(self._ideal)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the network and its inputs' statistics."""
        q = fitting(tensors, "q", tuple(self._trainer.weights.shape))
        inputs = fitting(tensors, "inputs", tuple(self._norm.weights().shape))
        with torch.no_grad():
            self._trainer.weights.copy_(q)
        self._norm.load(inputs)

    @property
    def _networks(self) -> Mapping[str, tuple[Trainer, MLP, int]]:
        return {"q": (self._trainer, self._net, 0)}

    @property
    def _followers(self) -> list[Lagging]:
        return [self._lagging]

    def _fed(self, action: Tensor) -> Tensor:
        return functional.one_hot(action[:, 0].long(), self._n_discrete).to(torch.float32)

    def _liked(self, values: Tensor, observation: Tensor) -> Tensor:
        """The first among the best choices (B, 1) that can be taken at observations (B, D)."""
        if self._mask is not None:
            values = values.masked_fill(observation[:, self._mask] < 0.5, UNAVAILABLE)
        return values.argmax(1, keepdim=True)

    def _step(self, batch: Batch, draw: np.random.Generator) -> float:
        successor = batch.following
        if self._ideal is not None:
            with torch.no_grad():
                liked = self._liked(self._net(self._norm(batch.following)), batch.following)
            self._ideal.learn(batch, self._fed(liked))
            successor = self._ideal.successor(batch)
        with torch.no_grad():
            x = self._norm(successor)
            liked = self._liked(self._net(x), batch.following)
            target = batch.reward + batch.onward * self._lagging(x).gather(1, liked).squeeze(1)
        loss = ((self._net(self._norm(batch.observation)) * batch.action).sum(1) - target).square().mean()
        loss.backward()
        self._trainer.step()
        self._lagging.follow()
        return float(loss.detach())


class TwinDelayed(Networked):
    """A deterministic policy within ± a bound and two critics, whose smaller value is believed.

    Args:
        width: D.
        act_dim: A.
        algorithm: Hyperparameters.
        generator: Draws the weights.
    """

    STATE = ("_steps",)

    def __init__(self, width: int, act_dim: int, algorithm: Algorithm, generator: torch.Generator) -> None:
        super().__init__(width, act_dim, algorithm, generator)
        self._act_dim = act_dim
        self._bound = algorithm.off_policy.action_bound
        self._actor = network(algorithm, width, act_dim, generator)
        self._critics = [network(algorithm, width + act_dim, 1, generator) for _ in range(2)]
        self._actor_trainer = trainer(self._actor, algorithm, algorithm.actor_lr)
        self._critic_trainers = [trainer(critic, algorithm, algorithm.critic_lr) for critic in self._critics]
        keep = algorithm.off_policy.target_keep
        self._lagging_actor, *self._lagging_critics = (Lagging(net, keep) for net in (self._actor, *self._critics))
        self._steps = 0

    def best(self, observation: Floats) -> Floats:
        """What the policy does."""
        with torch.inference_mode():
            return np.asarray(
                (self._bound * torch.tanh(self._actor(self._norm(torch.from_numpy(observation))))).numpy(), np.float32
            )

    def module(self) -> nn.Module:
        """Actions before they are brought within their bound."""
        return Standardised(self._norm, self._actor)

    def weights(self) -> dict[str, Tensor]:
        """Policy, critics, their inputs' statistics, and the ideal's two networks."""
        tensors = {"actor": self._actor_trainer.weights.detach(), "inputs": self._norm.weights()}
        tensors |= {f"critic_{k}": each.weights.detach() for k, each in enumerate(self._critic_trainers)}
        return tensors | ideal_weights(self._ideal)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the policy and its inputs' statistics."""
        actor = fitting(tensors, "actor", tuple(self._actor_trainer.weights.shape))
        inputs = fitting(tensors, "inputs", tuple(self._norm.weights().shape))
        with torch.no_grad():
            self._actor_trainer.weights.copy_(actor)
        self._norm.load(inputs)

    @property
    def _networks(self) -> Mapping[str, tuple[Trainer, MLP, int]]:
        critics = zip(self._critic_trainers, self._critics, strict=True)
        of_critics = {f"critic_{k}": (each, critic, self._act_dim) for k, (each, critic) in enumerate(critics)}
        return {"actor": (self._actor_trainer, self._actor, 0), **of_critics}

    @property
    def _followers(self) -> list[Lagging]:
        return [self._lagging_actor, *self._lagging_critics]

    def _fed(self, action: Tensor) -> Tensor:
        return action

    def _step(self, batch: Batch, draw: np.random.Generator) -> float:
        successor = batch.following
        if self._ideal is not None:
            self._ideal.learn(batch, self._bound * torch.tanh(self._lagging_actor(self._norm(batch.following))))
            successor = self._ideal.successor(batch)
        x = self._norm(successor)
        noise = torch.from_numpy(draw.standard_normal(batch.action.shape, dtype=np.float32))
        smoothing = (self._algorithm.off_policy.target_noise * noise).clamp_(-SMOOTHING_CLIP, SMOOTHING_CLIP)
        action = self._bound * (torch.tanh(self._lagging_actor(x)) + smoothing).clamp_(-1.0, 1.0)
        pair = torch.cat((x, action), 1)
        believed = torch.minimum(*(critic(pair).squeeze(1) for critic in self._lagging_critics))
        target = batch.reward + batch.onward * believed
        x = self._norm(batch.observation)
        pair = torch.cat((x, batch.action), 1)
        total = 0.0
        for critic, each in zip(self._critics, self._critic_trainers, strict=True):
            loss = (critic(pair).squeeze(1) - target).square().mean()
            loss.backward()
            each.step()
            total += 0.5 * float(loss.detach())
        self._steps += 1
        if self._steps % self._algorithm.off_policy.policy_delay == 0:
            own = self._bound * torch.tanh(self._actor(x))
            (-self._critics[0](torch.cat((x, own), 1)).mean()).backward()
            self._actor_trainer.step()
            self._critic_trainers[0].gradient.zero_()  # the critic is only asked here
            for follower in self._followers:
                follower.follow()
        return total


def ideal_weights(ideal: Ideal | None) -> dict[str, Tensor]:
    """The ideal's networks as vectors, by name; none without it."""
    if ideal is None:
        return {}
    nets = {"model": ideal.model, "q_ss": ideal.qss}
    return {name: nn.utils.parameters_to_vector(net.parameters()).detach() for name, net in nets.items()}
