"""A model of the world as one agent meets it, with a latent in the place of the others, and what they will do next.

Theory of operation. To an agent that sees itself alone the others are a part of the world, and the world changes because they
learn. Of each of the last l rounds the model keeps the samples D^j and has a latent function psi_j(z | o); transitions
P(o', end | o, a, z) and rewards R(o, a, z) are common to all rounds. So what differs from round to round has to go into z, and
a predictor f(z^l | z^1..z^(l-1)) can learn where z is going: from the latents of the window at the states of the last round,
and, asked with the window shifted by one, f tells the z of the round to come. Three steps a round:

1. `take`: the window shifts, D^j <- D^(j+1) with its latent function; the newest one starts as a copy of the one before.
2. `fit`: maximise mean over rounds and samples of log P(o', end | o, a, z) - (R(o, a, z) - r)², z ~ psi_j(o); then
   log f(z^l | z^1..z^(l-1)) over f alone. Each until the samples held out gain no more.
3. `step`: z ~ f(psi_2(o)..psi_l(o)), or psi_l(o) without prediction, and while fewer than l rounds have been seen, for then
   there is no window to shift; then o' and whether the episode ends from P, and r = R.

One-hot parts of an observation are categories; of numbers the change is Gaussian, in units of its own spread, with one
spread per column. The model predicts terminations but not time limits, which are not part of the environment.
What must not change: a sample held out stays so for as long as it is kept; chance is drawn by agent and round.

Source:
    Luo, Jiang and Lu 2023 (arXiv:2302.08139), MDPO. Sizes, l, the way of fitting, terminations and what holds before the window
    is full are ours.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from node.learners.off_policy.action_values import Samples
from node.numerics.critics import Shape
from node.numerics.losses import gaussian_log_prob
from node.numerics.networks import MLP, Trainer, torch_stream
from node.numerics.normalise import InputNorm, RunningMoments
from node.numerics.seeds import Purpose
from scenarios.schema import Algorithm
from topology.snapshot import State, Stateful

Floats = NDArray[np.float32]
HELD_OUT = 10  # one sample in so many is only ever used to tell when to stop
STALL = 3  # passes without a gain on these, of so many nats at least
GAIN = 1e-3
NARROWEST, WIDEST = -5.0, 2.0  # log standard deviations; a world without chance would have them fall for ever


def drawn(output: Tensor, draw: np.random.Generator) -> Tensor:
    """A sample (B, Z) of the Gaussians whose means and log standard deviations are the halves of (B, 2Z)."""
    return sampled(*_halves(output), draw)


def sampled(mean: Tensor, log_std: Tensor, draw: np.random.Generator) -> Tensor:
    """A sample of Gaussians, the shape of their means."""
    return mean + torch.exp(log_std) * torch.from_numpy(draw.standard_normal(mean.shape, dtype=np.float32))


def _halves(output: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = output.chunk(2, dim=-1)
    return mean, log_std.clamp(NARROWEST, WIDEST)


class Body(nn.Module):
    """P and R: what all rounds have in common.

    Args:
        transition: (o, a, z) -> logits of one-hot columns, mean changes of the others, logit of the end.
        reward: (o, a, z) -> r.
        width: D.
    """

    def __init__(self, transition: MLP, reward: MLP, width: int) -> None:
        super().__init__()
        self.transition = transition
        self.reward = reward
        self.log_std = nn.Parameter(torch.zeros(width))


@dataclass(frozen=True, slots=True)
class Round:
    """What the model has of one round: samples as tensors in its own units, the held-out ones first.

    Attributes:
        x: Standardised observations, (B, D).
        action: As networks take it, (B, A), one-hot where it is a choice.
        outcome: One-hot columns of what followed, and standardised changes of the others, (B, D).
        reward: Standardised, (B,).
        ended: 1 where the episode terminated, (B,).
    """

    x: Tensor
    action: Tensor
    outcome: Tensor
    reward: Tensor
    ended: Tensor


class WorldModel(Stateful):
    """One agent's window of rounds, and all that is learnt from it.

    Args:
        shape: Sizes; the observation is what the actor takes.
        algorithm: Hyperparameters.
    """

    STATE = ("_body_trainer", "_predictor_trainer", "_latent_trainers", "_norm", "_changes", "_rewards")

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        self._settings = settings = algorithm.world_model
        self._n_discrete = shape.n_discrete
        self._categories = shape.one_hot
        width = shape.actor_width
        hot = [column for part in shape.one_hot for column in range(part.start, part.stop)]
        self._numbers = torch.from_numpy(np.setdiff1d(np.arange(width), np.array(hot, np.intp)))
        size = width + (shape.n_discrete or shape.act_dim) + settings.latent

        def net(index: int, n_in: int, n_out: int) -> MLP:
            return MLP(
                n_in,
                settings.hidden,
                n_out,
                activation=algorithm.activation,
                layer_norm=algorithm.layer_norm,
                input_layer_norm=False,
                head_gain=1.0,
                generator=torch_stream(shape.seed, Purpose.MODEL, shape.agent, 0, index),
            )

        def trainer(module: nn.Module) -> Trainer:
            return Trainer(module, lr=settings.lr, eps=algorithm.adam_eps, max_grad_norm=algorithm.max_grad_norm)

        self._body = Body(net(0, size, width + 1), net(1, size, 1), width)
        self._predictor = net(2, (settings.window - 1) * settings.latent, 2 * settings.latent)
        latents = [net(3 + j, width, 2 * settings.latent) for j in range(settings.window)]
        self._body_trainer, self._predictor_trainer = trainer(self._body), trainer(self._predictor)
        self._latents = [(latent, trainer(latent)) for latent in latents]
        self._norm = InputNorm(width, running=True)
        self._changes, self._rewards = RunningMoments(width), RunningMoments(1)
        self._window: list[Samples] = []
        self._may_end = False
        self._metrics: dict[str, float] = {}

    @property
    def _latent_trainers(self) -> list[Trainer]:
        return [trainer for _, trainer in self._latents]

    # -------------------------------------------------------------- learning

    def take(self, fresh: Samples, draw: np.random.Generator) -> None:
        """Shift the window by a round; its samples are shuffled once, so that the first of them can be held out for good."""
        order = draw.permutation(len(fresh.reward))
        self._window.append(
            Samples(
                observation=fresh.observation[order],
                action=fresh.action[order],
                reward=fresh.reward[order],
                following=fresh.following[order],
                terminated=fresh.terminated[order],
            )
        )
        if len(self._window) > self._settings.window:
            del self._window[0]
            self._latents.append(self._latents.pop(0))
        if len(self._window) > 1:
            (_, before), (_, newest) = self._live()[-2:]
            newest.restore(before.state())
        goes_on = ~fresh.terminated
        self._norm.update(fresh.observation)
        if goes_on.any():
            self._changes.update((fresh.following - fresh.observation)[goes_on])
        self._rewards.update(fresh.reward[:, None])

    def decay(self, fraction: float) -> None:
        """Set the steps to this fraction of those at the start."""
        for trainer in (self._body_trainer, self._predictor_trainer, *self._latent_trainers):
            trainer.decay(fraction)

    def fit(self, draw: np.random.Generator) -> Iterator[None]:
        """Learn from the window; pauses after every minibatch."""
        rounds = [self._standardised(samples) for samples in self._window]
        self._may_end = any(samples.terminated.any() for samples in self._window)
        live = self._live()

        def of_body(rows: Tensor) -> Tensor:
            z = [drawn(latent(each.x[rows]), draw) for (latent, _), each in zip(live, rounds, strict=True)]
            return self._loss(rounds, rows, torch.cat(z))

        def of_predictor(rows: Tensor) -> Tensor:
            with torch.no_grad():
                *past, now = [drawn(latent(rounds[-1].x[rows]), draw) for latent, _ in live]
            mean, log_std = self._onward(past)
            return -gaussian_log_prob(now, mean, log_std).sum(-1).mean()

        trainers = [self._body_trainer, *(trainer for _, trainer in live)]
        self._metrics = {"model_rounds": float(len(rounds))}
        yield from self._until_it_stalls("model", of_body, trainers, draw)
        if self._predicts():
            yield from self._until_it_stalls("predictor", of_predictor, [self._predictor_trainer], draw)

    # ------------------------------------------------------------ imagining

    def step(self, observation: Floats, action: Floats, draw: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """What would follow.

        Args:
            observation: (B, D).
            action: (B, A) as the policy tells it; a choice is its index.
            draw: Chance.

        Returns:
            The observation after it (B, D), the reward (B,), and where the episode would terminate (B,).
        """
        with torch.inference_mode():
            x = self._norm(torch.from_numpy(observation))
            inputs = torch.cat((x, self._fed(action), self._latent(x, draw)), dim=1)
            told = self._body.transition(inputs)
            reward = self._body.reward(inputs)[:, 0].double().numpy() * self._rewards.std + self._rewards.mean
            following = observation.copy()
            for part in self._categories:
                likeliest = (told[:, part].numpy() + draw.gumbel(size=told[:, part].shape)).argmax(axis=1)
                following[:, part] = np.eye(part.stop - part.start, dtype=np.float32)[likeliest]
            if len(self._numbers):
                columns = self._numbers.numpy()
                std = torch.exp(self._log_std()).numpy()
                change = told[:, self._numbers].numpy() + std * draw.standard_normal((len(observation), len(columns)), np.float32)
                following[:, columns] += change * self._changes.std[columns] + self._changes.mean[columns]
            end_prob = torch.sigmoid(told[:, -1]).numpy() if self._may_end else np.zeros(len(observation), np.float32)
        return following, reward.astype(np.float32), draw.random(len(observation)) < end_prob

    # ------------------------------------------------------------ checkpoint

    def metrics(self) -> Mapping[str, float]:
        """Rounds in the window, losses on what was held out, and passes taken, by name."""
        return self._metrics

    def weights(self) -> dict[str, Tensor]:
        """All that is learnt, by name, in a fixed order; latents from the oldest round to the newest."""
        tensors = {"model": self._body_trainer.weights.detach(), "predictor": self._predictor_trainer.weights.detach()}
        tensors |= {f"latent_{j}": trainer.weights.detach() for j, (_, trainer) in enumerate(self._latents)}
        return tensors | {"model_inputs": self._norm.weights()}

    def state(self) -> State:
        """All that later rounds depend on, the window's samples included."""
        window = [[each.observation, each.action, each.reward, each.following, each.terminated] for each in self._window]
        return super().state() | {"window": window}

    def restore(self, state: State) -> None:
        """Take the state of a model of the same agent and scenario."""
        super().restore(state)
        self._window = [Samples(*columns) for columns in state["window"]]

    # ---------------------------------------------------------------- pieces

    def _live(self) -> list[tuple[MLP, Trainer]]:
        """The latent functions of the rounds in the window, and their trainers."""
        return self._latents[: len(self._window)]

    def _predicts(self) -> bool:
        return self._settings.prediction and len(self._window) == self._settings.window

    def _latent(self, x: Tensor, draw: np.random.Generator) -> Tensor:
        """z, (B, Z), of the round to come."""
        live = self._live()
        if not self._predicts():
            return drawn(live[-1][0](x), draw)
        mean, log_std = self._onward([drawn(latent(x), draw) for latent, _ in live[1:]])
        return sampled(mean, log_std, draw)

    def _onward(self, past: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the latent after those of l - 1 rounds, (B, Z) each: the last, and a change."""
        change, log_std = _halves(self._predictor(torch.cat(tuple(past), dim=1)))
        return past[-1] + change, log_std

    def _fed(self, action: Floats) -> Tensor:
        """Actions as networks take them: one-hot where they are choices."""
        told = torch.from_numpy(action)
        return functional.one_hot(told[:, 0].long(), self._n_discrete).to(torch.float32) if self._n_discrete else told

    def _log_std(self) -> Tensor:
        return self._body.log_std[self._numbers].clamp(NARROWEST, WIDEST)

    def _standardised(self, samples: Samples) -> Round:
        outcome = ((samples.following - samples.observation - self._changes.mean) / self._changes.std).astype(np.float32)
        for part in self._categories:
            outcome[:, part] = samples.following[:, part]
        return Round(
            x=self._norm(torch.from_numpy(samples.observation)),
            action=self._fed(samples.action),
            outcome=torch.from_numpy(outcome),
            reward=torch.from_numpy(((samples.reward - self._rewards.mean) / self._rewards.std).astype(np.float32)),
            ended=torch.from_numpy(samples.terminated.astype(np.float32)),
        )

    def _loss(self, rounds: Sequence[Round], rows: Tensor, z: Tensor) -> Tensor:
        """(R - r)² - log P, mean over rounds and rows; z as the rounds' rows lie one after the other, (l·M, Z)."""
        x, action, outcome, reward, ended = (
            torch.cat([getattr(each, name)[rows] for each in rounds])
            for name in ("x", "action", "outcome", "reward", "ended")
        )  # fmt: skip
        inputs = torch.cat((x, action, z), dim=1)
        told = self._body.transition(inputs)
        log_prob = gaussian_log_prob(outcome[:, self._numbers], told[:, self._numbers], self._log_std()).sum(-1)
        for part in self._categories:
            log_prob = log_prob + (torch.log_softmax(told[:, part], dim=-1) * outcome[:, part]).sum(-1)
        end = functional.binary_cross_entropy_with_logits(told[:, -1], ended, reduction="none")
        error = (self._body.reward(inputs)[:, 0] - reward).square()
        loss: Tensor = (error + end - (1.0 - ended) * log_prob).mean()
        return loss

    def _until_it_stalls(
        self, name: str, loss: Callable[[Tensor], Tensor], trainers: Sequence[Trainer], draw: np.random.Generator
    ) -> Iterator[None]:
        """Passes over all rows but those held out, until the loss of these falls no more; pauses after every minibatch."""
        settings, size = self._settings, len(self._window[-1].reward)
        held_out = -(-size // HELD_OUT) if size > 1 else 0
        best, stalled, passes, held_loss = math.inf, 0, 0, math.nan
        while passes < settings.passes and stalled < STALL:
            passes += 1
            for rows in torch.from_numpy(held_out + draw.permutation(size - held_out)).split(settings.batch):
                loss(rows).backward()
                for trainer in trainers:
                    trainer.step()
                yield
            with torch.no_grad():
                held_loss = float(loss(torch.arange(held_out))) if held_out else 0.0
            stalled = 0 if held_loss < best - GAIN else stalled + 1
            best = min(best, held_loss)
        self._metrics |= {f"{name}_loss": held_loss, f"{name}_passes": float(passes)}
