"""How a policy is trained on one round's samples, once advantages and the earlier agents' ratios are known.

Theory of operation. This is step (2) of `node.learners.on_policy.learner`. `samples` brings a round into the form in which
actors learn from it. `train` then takes first-order steps on every minibatch of every pass, or one step in a trust region;
`train_coupled` takes the same first-order steps, but asks for the others' ratios before each. Both pause after every
minibatch, and leave final log-ratios and metrics behind. A minibatch is worked through in pieces that fit the
processor's cache; their gradients add up to the minibatch's.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.learners.interface import Floats
from node.learners.on_policy.multipliers import EpisodeCosts, Margins, Multipliers, SharedMultipliers
from node.learners.on_policy.objectives import objective_of
from node.learners.on_policy.trust_region import Region
from node.numerics.advantage import standardised
from node.numerics.critics import Shape
from node.numerics.networks import Trainer, chunks
from node.numerics.normalise import InputNorm, RunningScale
from node.numerics.policies import Actor, Distribution
from node.numerics.rollout import Rollout
from scenarios.schema import Algorithm
from topology.snapshot import Stateful

SCALE_MEMORY = 0.9  # of the running variance of cost advantages, per round
SCALE_FLOOR = 0.01  # smallest scale of cost advantages, as a part of the limit (of 1 where the limit is below)


@dataclass(frozen=True, slots=True)
class Samples:
    """What an actor is trained on in one round.

    Attributes:
        x: Inputs, (B, D).
        action: (B, A).
        old: The policy that acted.
        old_log_prob: Its log-probabilities of the actions, (B, A).
        advantage: A, (B,), standardised.
        costs: A_u, (B,) each, centred and brought to scale.
        cost_advantages: A_u, (B,) each, as they were estimated, in units of their costs.
        factor: F, (B,); None: 1.
        there: In which of them the agent took part, (B,); None: in all. The others are in no mean.
    """

    x: Tensor
    action: Tensor
    old: Distribution
    old_log_prob: Tensor
    advantage: Tensor
    costs: list[Tensor]
    cost_advantages: Sequence[NDArray[np.float64]]
    factor: Tensor | None
    there: Tensor | None = None

    def present(self) -> "Samples":
        """Those in which the agent took part, alone."""
        if self.there is None:
            return self
        rows = self.there.nonzero()[:, 0]
        return Samples(
            self.x[rows], self.action[rows], self.old.rows(rows), self.old_log_prob[rows], self.advantage[rows],
            [cost[rows] for cost in self.costs], [cost[rows.numpy()] for cost in self.cost_advantages],
            None if self.factor is None else self.factor[rows],
        )  # fmt: skip

    def ratios(self, log_ratio: Tensor, rows: Tensor | None = None) -> Tensor:
        """Log-ratios of all samples or of some rows, 0 where the agent took no part."""
        if self.there is None:
            return log_ratio
        return torch.where(self.there if rows is None else self.there[rows], log_ratio, 0.0)


class Tally:
    """Means over the minibatches of an update."""

    def __init__(self) -> None:
        self._n = 0
        self._norm = self._clipped = 0.0

    def add(self, norm: float, clipped: float) -> None:
        """Count a minibatch in: its gradient's norm and its share of clipped ratios."""
        self._n += 1
        self._norm += norm
        self._clipped += clipped

    def means(self) -> Mapping[str, float]:
        """The means by name."""
        return {"clip_frac": self._clipped / self._n, "grad_norm": self._norm / self._n} if self._n else {}


def total_log_ratio(log_ratios: Sequence[Floats]) -> NDArray[np.float64]:
    """Sum of log-ratios (B,), in double precision and in the order given."""
    total = np.zeros(len(log_ratios[0]))
    for log_ratio in log_ratios:
        total += log_ratio
    return total


class PolicyTraining(Stateful):
    """How one agent's actor learns, at what price of costs, and what came of it.

    Args:
        shape: Sizes.
        algorithm: Hyperparameters.
        actor: The policy.
        trainer: Its weights and gradients.
        norm: Of its inputs.

    Attributes:
        mults: Prices of costs.
        margins: How far below their limits costs are aimed (CPO).
        costs: What episodes have cost.
        log_ratio: Final log-ratios (B,) of the last round, summed over action dimensions.
        metrics: Of the last training, by name.
    """

    STATE = ("_objective", "mults", "margins", "costs", "_cost_scales")

    def __init__(self, shape: Shape, algorithm: Algorithm, actor: Actor, trainer: Trainer, norm: InputNorm) -> None:
        self._shape = shape
        self._algorithm = algorithm
        self._actor = actor
        self._trainer = trainer
        self._norm = norm
        self._constraint = constraint = algorithm.recipe.constraint
        self._objective = None if algorithm.recipe.objective == "trust_region" else objective_of(algorithm)
        self._cost_scales = [RunningScale(keep=SCALE_MEMORY, floor=SCALE_FLOOR * max(limit, 1.0)) for limit in shape.cost_limits]
        priced = SharedMultipliers if algorithm.shares_budget else Multipliers
        self.mults = priced(algorithm, shape.cost_limits, shape.copies)
        self.margins = Margins(shape.cost_limits if constraint == "cpo" else (), shape.copies)
        self.costs = EpisodeCosts(shape.copies, len(shape.cost_limits), shape.cut_copies)
        self.log_ratio = torch.zeros(0)
        self.metrics: dict[str, float] = {}

    def samples(
        self,
        rollout: Rollout,
        advantage: NDArray[np.float64],
        cost_advantages: Sequence[NDArray[np.float64]],
        earlier: Sequence[Floats] = (),
    ) -> Samples:
        """What there is to learn from in a round, given A and each A_u, (B,), and the earlier agents' final log-ratios (B,)."""
        shape = self._shape
        batch = shape.steps * shape.copies
        x = self._norm(torch.from_numpy(shape.for_actor(rollout.observation)))
        if (available := shape.available(rollout.observation)) is not None:
            x = torch.cat((x, torch.from_numpy(available.astype(np.float32))), 1)
        there = shape.takes_part(rollout.observation)
        action = torch.from_numpy(rollout.action.reshape(batch, -1))
        with torch.no_grad():
            old = self._actor.everywhere(x, self._algorithm.chunk).kept()
            old_log_prob = old.log_prob(action)
        weighed = torch.from_numpy(_spread(standardised(_of(advantage, there)), there).astype(np.float32))
        scaled = self._scaled([_of(cost, there) for cost in cost_advantages])
        costs = [torch.from_numpy(_spread(cost, there).astype(np.float32)) for cost in scaled]
        mask = None if there is None else torch.from_numpy(there)
        return Samples(x, action, old, old_log_prob, weighed, costs, cost_advantages, self._factor(earlier), mask)

    def train(self, samples: Samples, permutations: Sequence[Tensor], place: int) -> Iterator[None]:
        """Train the actor and step the multipliers; pauses after every minibatch.

        Args:
            samples: Of the round.
            permutations: The order of samples, (B,), in each pass.
            place: The agent's place among those whose ratios multiply each other's advantages, from 1.
        """
        self.mults.step(self.costs)
        if self._objective is None:
            yield from self._step_in_region(samples)
        else:
            self._objective.begin(place, self._shape.reach)
            yield from self._ascend(samples, permutations)
        self._conclude(samples)

    def train_coupled(self, samples: Samples, permutations: Sequence[Tensor]) -> Generator[Floats, Sequence[Floats], None]:
        """Train the actor at the same time as others do, on their ratios as they are at every minibatch.

        Before each minibatch it yields its own log-ratios (M,) on it and is sent those of the others on the same
        samples, in ascending id; minibatches are drawn from a stream that all agents share.
        """
        assert self._objective is not None
        self.mults.step(self.costs)
        self._objective.begin(self._shape.reach, self._shape.reach)  # no agent is earlier: all have the last one's room
        tally = Tally()
        for permutation in permutations:
            for rows in permutation.tensor_split(self._algorithm.minibatches):
                with torch.no_grad():
                    new = self._actor.everywhere(samples.x[rows], self._algorithm.chunk)
                    mine = (new.log_prob(samples.action[rows]) - samples.old_log_prob[rows]).sum(-1)
                    mine = samples.ratios(mine, rows)
                others = yield mine.numpy()
                self._minibatch(samples, rows, self._factor(others), tally)
        self.metrics |= tally.means()
        self._conclude(samples)

    def sit_out(self, batch: int) -> None:
        """A round of so many samples in which nothing is learnt: the ratios are 1."""
        self.log_ratio = torch.zeros(batch)
        self.metrics = {}

    def prices(self) -> Mapping[str, float]:
        """Multipliers, margins and episode costs, by name."""
        found = dict(self.mults.metrics())
        found |= {f"margin_{u}": margin for u, margin in enumerate(self.margins.values)}
        return found | {f"episode_cost_{u}": cost for u, cost in enumerate(self.costs.means or ())}

    # ---------------------------------------------------------------- pieces

    def _scaled(self, cost_advantages: Sequence[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
        """Each A_u, (B,), centred and brought to scale."""
        for u, (cost, running) in enumerate(zip(cost_advantages, self._cost_scales, strict=True)):
            self.metrics[f"cost_advantage_std_{u}"] = float(cost.std())
            if self._algorithm.cost_scale == "round":
                yield standardised(cost)
                continue
            self.metrics[f"cost_scale_{u}"] = scale = running.take(cost)
            yield (cost - cost.mean()) / scale

    def _ascend(self, samples: Samples, permutations: Sequence[Tensor]) -> Iterator[None]:
        """First-order steps on every minibatch of every pass."""
        assert self._objective is not None
        tally = Tally()
        for permutation in permutations:
            for rows in permutation.tensor_split(self._algorithm.minibatches):
                self._minibatch(samples, rows, None if samples.factor is None else samples.factor[rows], tally)
                yield
            if self._objective.stops_early:
                with torch.no_grad():
                    there = samples.present()
                    if self._objective.is_done(there.old, self._actor.everywhere(there.x, self._algorithm.chunk)):
                        break
        self.metrics |= tally.means()

    def _minibatch(self, samples: Samples, rows: Tensor, factor: Tensor | None, tally: Tally) -> None:
        assert self._objective is not None
        if samples.there is not None:
            there = samples.there[rows]
            rows, factor = rows[there], None if factor is None else factor[there]
            if not len(rows):
                return
        ratio = self._actor_step(samples, rows, factor)
        norm = self._trainer.step()
        tally.add(norm, float(((ratio - 1.0).abs() > self._objective.width).float().mean()))
        if self.mults.ascends:
            joint = ratio if ratio.ndim == 1 else ratio.prod(-1)
            self.mults.ascend(self.costs, [float((joint * cost.index_select(0, rows)).mean()) for cost in samples.costs])

    def _mixed(self, advantage: Tensor, costs: Sequence[Tensor]) -> Tensor:
        """H, (M,): the advantage with the costs priced in."""
        if self.mults.values:
            for mult, cost in zip(self.mults.values, costs, strict=True):
                advantage = advantage - mult * cost
            advantage = advantage / self.mults.denominator
        return advantage

    def _actor_step(self, samples: Samples, rows: Tensor, factor: Tensor | None) -> Tensor:
        """Gather the policy gradient of one minibatch; the ratios, (M,) or (M, A), before the step."""
        algorithm, objective = self._algorithm, self._objective
        assert objective is not None
        ratios = []
        per_dim = algorithm.ratio == "per_dim"
        factors = repeat(None) if factor is None else chunks(factor, algorithm.chunk)
        for piece, factor_ in zip(chunks(rows, algorithm.chunk), factors, strict=False):
            new = self._actor.forward(samples.x.index_select(0, piece))
            log_ratio = new.log_prob(samples.action.index_select(0, piece)) - samples.old_log_prob.index_select(0, piece)
            ratio = torch.exp(log_ratio if per_dim else log_ratio.sum(-1))
            costs = [cost.index_select(0, piece) for cost in samples.costs]
            advantage = self._mixed(samples.advantage.index_select(0, piece), costs)
            if per_dim:
                advantage, factor_ = advantage[:, None], None if factor_ is None else factor_[:, None]
            gain = objective.gain(ratio, advantage, factor_)
            old = samples.old.rows(piece) if objective.needs_divergence else samples.old
            gain = objective.priced(gain.sum(-1) if per_dim else gain, old, new)
            loss = -(gain.mean() + algorithm.entropy_coef * new.entropy())
            if len(piece) < len(rows):
                loss = loss * (len(piece) / len(rows))
            loss.backward()
            ratios.append(ratio.detach())
        return torch.cat(ratios)

    def _step_in_region(self, samples: Samples) -> Iterator[None]:
        """One step within a trust region, bent by the costs' planes where the recipe says so."""
        samples = samples.present()
        algorithm = self._algorithm
        advantages, excess = [self._mixed(samples.advantage, samples.costs)], []
        if self._constraint == "cpo" and (means := self.costs.means) is not None:
            # in cost units, for they are held against a limit in these units
            advantages += [torch.from_numpy((cost - cost.mean()).astype(np.float32)) for cost in samples.cost_advantages]
            self.margins.step(self.costs)
            # an episode's cost moves by its length times the mean over its steps of ratio·A_u, which is what the planes hold
            length = self.costs.mean_length
            targets = zip(means, self._shape.cost_limits, self.margins.values, strict=True)
            excess = [(mean - limit + margin) / length for mean, limit, margin in targets]
        if samples.factor is not None:
            advantages = [advantage * samples.factor for advantage in advantages]
        region = Region(
            actor=self._actor,
            weights=self._trainer.weights,
            x=samples.x,
            action=samples.action,
            old=samples.old,
            advantages=advantages,
            excess=excess,
            bound=algorithm.kl_bound,
            damping=algorithm.damping,
            backtrack=algorithm.backtrack,
            chunk=algorithm.chunk,
        )
        metrics = yield from region.improve()
        self.metrics |= metrics
        if self.mults.ascends:
            with torch.no_grad():
                new = self._actor.everywhere(samples.x, algorithm.chunk)
                ratio = torch.exp((new.log_prob(samples.action) - samples.old_log_prob).sum(-1))
            self.mults.ascend(self.costs, [float((ratio * cost).mean()) for cost in samples.costs])

    def _conclude(self, samples: Samples) -> None:
        with torch.no_grad():
            new = self._actor.everywhere(samples.x, self._algorithm.chunk)
            self.log_ratio = samples.ratios((new.log_prob(samples.action) - samples.old_log_prob).sum(-1))
            kl = samples.old.kl(new)
            if samples.there is not None:
                rows = samples.there.nonzero()[:, 0]
                kl, new = kl[rows], new.rows(rows)
            self.metrics |= {"kl": float(kl.mean()), "entropy": float(new.entropy()), **self._actor.metrics()}
        if self._objective is not None:
            self.metrics |= self._objective.metrics()
            self._objective.end(kl)

    def _factor(self, earlier: Sequence[Floats]) -> Tensor | None:
        """F, (B,): the product of the earlier agents' final ratios, summed as logarithms in double precision."""
        return torch.from_numpy(np.exp(total_log_ratio(earlier)).astype(np.float32)) if earlier else None


def _of(values: NDArray[np.float64], there: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """The values (B,) of samples in which the agent took part."""
    return values if there is None else values[there]


def _spread(values: NDArray[np.float64], there: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """The same at the places of all samples, (B,), 0 where the agent took no part."""
    if there is None:
        return values
    spread = np.zeros(len(there))
    spread[there] = values
    return spread
