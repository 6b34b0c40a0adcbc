"""The on-policy learner: one loop for every row of the recipe table.

Theory of operation. After a rollout of B = T·E samples an agent (1) values every sample and every cut, estimates
advantages of its reward and of each cost, and trains its critics; (2) once it holds the final ratios of the agents it
depends on, trains its actor on

    maximise mean[ F · min(rho·H, clip(rho)·H) ] + c_H·entropy,      H = A - sum_u mult_u·A_u,

stepping the multipliers with every minibatch; (3) computes its own final log-ratios for those who come later. (1) needs
nobody, so all agents do it at once; only (2) is ever sequential. Splitting the two changes no number, because actor and
critics share nothing but the order of the minibatches, which is drawn once per round.

`learn_values` and `learn_policy` are generators that pause after every minibatch, so that the node can pass messages on
meanwhile. A minibatch is worked through in chunks that fit the processor's cache; their gradients add up to the
minibatch's.

What must not change: A and A_u are standardised over the whole batch once; F multiplies outside the minimum; the old
log-probabilities are those of the stored inputs under the parameters that acted.

Source:
    algorithm 1 and eq. 20 of the Scal-MAPPO-L paper; the public MAPPO-L code for what the paper leaves open
    (docs/algorithms/).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.advantage import gae, standardised
from node.losses import (
    clip_objective,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    multiplier_step,
    value_loss,
)
from node.networks import MLP, GaussianActor, Trainer
from node.normalise import InputNorm, ValueNorm
from node.rollout import Rollout
from node.seeds import Purpose, stream, torch_stream
from scenarios.schema import Algorithm

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
        actor_columns: Columns of the sight that the actor takes.
        critic_columns: Columns that the critics take.
        actor_width: How many those are.
        critic_width: How many those are.
        n_actions: A.
        cost_limits: b_u, one per cost; empty where the recipe ignores costs.
    """

    agent: int
    seed: int
    steps: int
    copies: int
    rounds: int
    actor_columns: Columns
    critic_columns: Columns
    actor_width: int
    critic_width: int
    n_actions: int
    cost_limits: tuple[float, ...]


class Critic:
    """A value function of the reward or of one cost: network, optimiser, return statistics."""

    def __init__(self, shape: Shape, algorithm: Algorithm, index: int) -> None:
        self.net = MLP(
            shape.critic_width,
            algorithm.hidden,
            1,
            activation=algorithm.activation,
            layer_norm=algorithm.layer_norm,
            input_layer_norm=algorithm.input_norm == "layer",
            head_gain=1.0,
            generator=torch_stream(shape.seed, Purpose.INIT, shape.agent, 1 + index),
        )
        self.trainer = Trainer(self.net, lr=algorithm.critic_lr, eps=algorithm.adam_eps, max_grad_norm=algorithm.max_grad_norm)
        self.norm = ValueNorm(enabled=algorithm.value_norm, beta=algorithm.value_norm_beta)
        self.old = torch.zeros(0)
        self.target = torch.zeros(0)

    def adopt(self, old: NDArray[np.float64], returns: NDArray[np.float64]) -> None:
        """Take in a round's returns (B,) and set the targets; `old` are the predictions (B,) in the old units."""
        scale, shift = self.norm.update(returns)
        with torch.no_grad():
            self.net.head.weight.mul_(scale)
            self.net.head.bias.mul_(scale).add_(shift)
        self.old = torch.from_numpy((old * scale + shift).astype(np.float32))
        self.target = torch.from_numpy(self.norm.normalise(returns).astype(np.float32))


class Learner:
    """One agent's actor, critics and multipliers, and how they learn from a rollout."""

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        self._shape = shape
        self._algorithm = algorithm
        mean = MLP(
            shape.actor_width,
            algorithm.hidden,
            shape.n_actions,
            activation=algorithm.activation,
            layer_norm=algorithm.layer_norm,
            input_layer_norm=algorithm.input_norm == "layer",
            head_gain=algorithm.head_gain,
            generator=torch_stream(shape.seed, Purpose.INIT, shape.agent, 0),
        )
        self._actor = GaussianActor(mean, shape.n_actions, std=algorithm.std, std_init=algorithm.std_init)
        self._actor_trainer = Trainer(
            self._actor, lr=algorithm.actor_lr, eps=algorithm.adam_eps, max_grad_norm=algorithm.max_grad_norm
        )
        self._critics = [Critic(shape, algorithm, index) for index in range(1 + len(shape.cost_limits))]
        running = algorithm.input_norm == "running"
        self._actor_norm = InputNorm(shape.actor_width, running=running)
        self._critic_norm = InputNorm(shape.critic_width, running=running)
        self._mults = [algorithm.mult_init] * len(shape.cost_limits)
        self._episode_cost: list[float] | None = None
        self._running_cost = np.zeros((shape.copies, len(shape.cost_limits)))
        self._noise = np.zeros((0, 0, 0), np.float32)
        self._permutations: list[Tensor] = []
        self._advantage = np.zeros(0)
        self._cost_advantages: list[NDArray[np.float64]] = []
        self._log_ratio = torch.zeros(0)
        self._metrics: dict[str, float] = {}

    # ---------------------------------------------------------------- acting

    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration noise, and fix the step sizes."""
        shape = self._shape
        size = (shape.steps, shape.copies, shape.n_actions)
        draw = stream(shape.seed, Purpose.NOISE, shape.agent, round_)
        with torch.no_grad():
            std = torch.exp(self._actor.log_std()).numpy()
        self._noise = std * draw.standard_normal(size, dtype=np.float32) if explore else np.zeros(size, np.float32)
        if self._algorithm.lr_decay == "linear":
            for trainer in (self._actor_trainer, *(critic.trainer for critic in self._critics)):
                trainer.decay(1.0 - round_ / shape.rounds)

    def act(self, step: int, sight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions (E, A) for the sight (E, D) of one step."""
        with torch.inference_mode():
            x = torch.from_numpy(sight[:, self._shape.actor_columns])
            mean = self._actor.mean.forward(self._actor_norm(x)).numpy()  # forward: a call's hooks cost as much as a layer
        action: NDArray[np.float32] = mean + self._noise[step]
        return action

    # -------------------------------------------------------------- learning

    def learn_values(self, round_: int, rollout: Rollout, reward: NDArray[np.float32]) -> Iterator[None]:
        """Estimate advantages and train the critics; pauses after every minibatch.

        Args:
            round_: Round k.
            rollout: The samples.
            reward: (T, E) what to learn from: the agent's own reward, or a mean over its ball.
        """
        shape, algorithm = self._shape, self._algorithm
        batch = shape.steps * shape.copies
        draw = stream(shape.seed, Purpose.SHUFFLE, shape.agent, round_)
        self._permutations = [torch.from_numpy(draw.permutation(batch)) for _ in range(algorithm.epochs)]
        columns = shape.critic_columns
        x = self._critic_norm(torch.from_numpy(rollout.sight.reshape(batch, -1)[:, columns]))
        cut_x = self._critic_norm(torch.from_numpy(rollout.cut_sight[:, columns]))
        signals = [reward, *(rollout.cost[:, :, u] for u in range(len(shape.cost_limits)))]
        advantages = [
            self._estimate(critic, x, cut_x, rollout, signal) for critic, signal in zip(self._critics, signals, strict=True)
        ]
        self._advantage, *self._cost_advantages = advantages
        self._note_episode_costs(rollout)
        losses = np.zeros(len(self._critics))
        for rows in self._minibatches():
            for place, critic in enumerate(self._critics):
                losses[place] += self._critic_step(critic, x, rows)
            yield
        losses /= algorithm.epochs * algorithm.minibatches
        self._metrics = {"value_loss": losses[0], "advantage_std": float(self._advantage.std())}
        self._metrics |= {f"cost_value_loss_{u}": loss for u, loss in enumerate(losses[1:])}

    def learn_policy(self, rollout: Rollout, earlier: Sequence[NDArray[np.float32]]) -> Iterator[None]:
        """Train the actor and step the multipliers; pauses after every minibatch.

        Args:
            rollout: The samples.
            earlier: Final log-ratios (B,) of the agents depended on, in the order in which they updated.
        """
        shape, algorithm = self._shape, self._algorithm
        batch = shape.steps * shape.copies
        x = self._actor_norm(torch.from_numpy(rollout.sight.reshape(batch, -1)[:, shape.actor_columns]))
        action = torch.from_numpy(rollout.action.reshape(batch, -1))
        with torch.no_grad():
            old_mean = self._forward(self._actor.mean, x)
            old_log_std = self._actor.log_std().clone()
            old_log_prob = gaussian_log_prob(action, old_mean, old_log_std)
        advantage = torch.from_numpy(standardised(self._advantage).astype(np.float32))
        costs = [torch.from_numpy(standardised(cost).astype(np.float32)) for cost in self._cost_advantages]
        factor = self._factor(earlier, batch)
        clipped = norm = 0.0
        for rows in self._minibatches():
            mixed = advantage[rows]
            for mult, cost in zip(self._mults, costs, strict=True):
                mixed = mixed - mult * cost[rows]
            if factor is not None:
                mixed = mixed * factor[rows]
            ratio = self._actor_step(x[rows], action[rows], old_log_prob[rows], mixed)
            norm += self._actor_trainer.step()
            clipped += float(((ratio - 1.0).abs() > algorithm.clip).float().mean())
            joint = ratio if ratio.ndim == 1 else ratio.prod(-1)
            self._step_multipliers([float((joint * cost[rows]).mean()) for cost in costs])
            yield
        n_steps = algorithm.epochs * algorithm.minibatches
        with torch.no_grad():
            mean = self._forward(self._actor.mean, x)
            log_std = self._actor.log_std()
            self._log_ratio = (gaussian_log_prob(action, mean, log_std) - old_log_prob).sum(-1)
            kl = gaussian_kl(old_mean, old_log_std, mean, log_std).mean()
            self._metrics |= {
                "kl": float(kl),
                "entropy": float(gaussian_entropy(log_std)),
                "std": float(torch.exp(log_std).mean()),
                "clip_frac": clipped / n_steps,
                "grad_norm": norm / n_steps,
            }

    def sit_out(self, rollout: Rollout) -> None:
        """Learn nothing from a round in which the agent was down for a while: its policy stays, and its ratios are 1."""
        self._note_episode_costs(rollout)
        self._log_ratio = torch.zeros(rollout.reward.size)

    def log_ratio(self) -> NDArray[np.float32]:
        """Final log-ratios (B,), summed over action dimensions: what later agents need."""
        return self._log_ratio.numpy()

    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """Let the input statistics take in the round; the round's figures by name."""
        rows = rollout.sight.reshape(-1, rollout.sight.shape[-1])
        self._actor_norm.update(rows[:, self._shape.actor_columns])
        self._critic_norm.update(rows[:, self._shape.critic_columns])
        for u, mult in enumerate(self._mults):
            self._metrics[f"multiplier_{u}"] = mult
            if self._episode_cost is not None:
                self._metrics[f"episode_cost_{u}"] = self._episode_cost[u]
        return self._metrics

    # ------------------------------------------------------------- checkpoint

    def weights(self) -> dict[str, Tensor]:
        """All that makes up the policy and the critics, by name, in a fixed order."""
        tensors = {"actor": self._actor_trainer.weights.detach(), "actor_inputs": self._actor_norm.state()}
        for index, critic in enumerate(self._critics):
            tensors[f"critic_{index}"] = critic.trainer.weights.detach()
            tensors[f"critic_{index}_returns"] = torch.tensor([critic.norm.mu, critic.norm.sigma], dtype=torch.float64)
        tensors["critic_inputs"] = self._critic_norm.state()
        tensors["multipliers"] = torch.tensor(self._mults, dtype=torch.float64)
        return tensors

    def load_policy(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the actor from a checkpoint.

        Raises:
            ValueError: the checkpoint does not fit this scenario's networks.
        """
        for name, mine in (("actor", self._actor_trainer.weights), ("actor_inputs", self._actor_norm.state())):
            if name not in tensors or tensors[name].shape != mine.shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ValueError(
                    f"checkpoint of agent {self._shape.agent}: {name} needs shape {tuple(mine.shape)}, found {found}"
                )
        with torch.no_grad():
            self._actor_trainer.weights.copy_(tensors["actor"])
        self._actor_norm.restore(tensors["actor_inputs"])

    # ---------------------------------------------------------------- pieces

    def _estimate(
        self, critic: Critic, x: Tensor, cut_x: Tensor, rollout: Rollout, signal: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Advantages (B,) of one signal (T, E); sets the critic's targets."""
        algorithm = self._algorithm
        with torch.no_grad():
            predicted = self._forward(critic.net, x).squeeze(-1).double().numpy()
            at_cuts = self._forward(critic.net, cut_x).squeeze(-1).double().numpy()
        value = critic.norm.restore(predicted).reshape(signal.shape)
        next_value = np.concatenate((value[1:], np.zeros_like(value[:1])))
        cuts = rollout.cuts()
        next_value[cuts[:, 0], cuts[:, 1]] = critic.norm.restore(at_cuts)
        advantage = gae(
            signal,
            value,
            next_value,
            rollout.terminated,
            rollout.truncated,
            gamma=algorithm.gamma,
            lam=algorithm.gae_lambda,
            bootstrap=algorithm.truncation == "bootstrap",
        )
        critic.adopt(predicted, (advantage + value).reshape(-1))
        return advantage.reshape(-1)

    def _note_episode_costs(self, rollout: Rollout) -> None:
        """Mean undiscounted cost of the episodes that ended in this round; the last known one if none did."""
        finished = []
        for cost, ended in zip(rollout.cost, rollout.terminated | rollout.truncated, strict=True):
            self._running_cost += cost[:, : self._running_cost.shape[1]]
            if ended.any():
                finished.append(self._running_cost[ended])
                self._running_cost[ended] = 0.0
        if finished:
            self._episode_cost = [float(mean) for mean in np.concatenate(finished).mean(axis=0)]

    def _step_multipliers(self, mean_ratio_costs: Sequence[float]) -> None:
        algorithm = self._algorithm
        for u, (limit, mean_ratio_cost) in enumerate(zip(self._shape.cost_limits, mean_ratio_costs, strict=True)):
            self._mults[u] = multiplier_step(
                self._mults[u],
                episode_cost=None if self._episode_cost is None else self._episode_cost[u],
                limit=limit,
                gamma=algorithm.gamma,
                mean_ratio_cost=mean_ratio_cost,
                lr=algorithm.mult_lr,
                top=algorithm.mult_max,
            )

    def _critic_step(self, critic: Critic, x: Tensor, rows: Tensor) -> float:
        algorithm = self._algorithm
        total = 0.0
        for chunk in rows.split(algorithm.chunk):
            loss = value_loss(
                critic.net(x[chunk]).squeeze(-1),
                critic.old[chunk],
                critic.target[chunk],
                value_clip=algorithm.value_clip,
                huber_delta=algorithm.huber_delta,
            ) * (len(chunk) / len(rows))
            loss.backward()
            total += float(loss.detach())
        critic.trainer.step()
        return total

    def _actor_step(self, x: Tensor, action: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
        """Gather the policy gradient of one minibatch; the ratios, (M,) or (M, A), before the step."""
        algorithm = self._algorithm
        ratios = []
        pieces = (tensor.split(algorithm.chunk) for tensor in (x, action, old_log_prob, advantage))
        for x_, action_, old_, advantage_ in zip(*pieces, strict=True):
            mean, log_std = self._actor(x_)
            log_ratio = gaussian_log_prob(action_, mean, log_std) - old_
            if algorithm.ratio == "joint":
                ratio = torch.exp(log_ratio.sum(-1))
                objective = clip_objective(ratio, advantage_, clip=algorithm.clip)
            else:
                ratio = torch.exp(log_ratio)
                objective = clip_objective(ratio, advantage_[:, None], clip=algorithm.clip).sum(-1)
            loss = -(objective.mean() + algorithm.entropy_coef * gaussian_entropy(log_std))
            (loss * (len(x_) / len(x))).backward()
            ratios.append(ratio.detach())
        return torch.cat(ratios)

    def _factor(self, earlier: Sequence[NDArray[np.float32]], batch: int) -> Tensor | None:
        """F, (B,): the product of the earlier agents' final ratios, summed as logarithms in double precision."""
        if not earlier:
            return None
        total = np.zeros(batch)
        for log_ratio in earlier:
            total += log_ratio
        return torch.from_numpy(np.exp(total).astype(np.float32))

    def _forward(self, net: MLP, x: Tensor) -> Tensor:
        """A network's outputs for any number of rows, chunk by chunk."""
        return torch.cat([net(chunk) for chunk in x.split(self._algorithm.chunk)]) if len(x) else net(x)

    def _minibatches(self) -> Iterator[Tensor]:
        for permutation in self._permutations:
            yield from permutation.tensor_split(self._algorithm.minibatches)
