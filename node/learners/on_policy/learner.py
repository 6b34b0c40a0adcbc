"""The on-policy learner: one loop for every row of the recipe table.

Theory of operation. After a rollout of B = T·E samples an agent (1) values every sample and every cut, estimates
advantages of its reward and of each cost, and trains its critics; (2) once it holds the final ratios of the agents it
depends on, trains its actor on

    maximise mean[ F · gain(rho, H) ] + c_H·entropy,      H = A - sum_u mult_u·A_u,

H divided by 1 + sum_u mult_u where it is weighed against something else (`Multipliers.denominator`); (3) computes its own
final log-ratios for those who come later. (1) needs nobody, so all agents do it at once; only (2) is ever sequential.
Splitting the two changes no number, because actor and critics share nothing but the order of the minibatches, which is drawn
once per round.

The recipe's axes enter at these places and at no other:

- objective: `gain` is an object of `node.learners.on_policy.objectives`; a trust region takes (2) in one step of
`node.learners.on_policy.trust_region`.
- constraint: multipliers are stepped with every minibatch (lagrangian) or once before (2) (pid_lagrangian, focops); cpo has
none, the costs go into the trust region's step.
- trace: with preopc advantages depend on the earlier agents' ratios, so (1) waits for them and becomes a part of (2).
- order "simultaneous" with the double clip: (2) is `learn_coupled`, which asks for the others' ratios at every
minibatch. Order "alternating": an agent that has not its turn does `sit_out` instead of (1) to (3).
- critic scope "central": the agent has no critics, and (1) takes what the central critic has answered. With a shared policy (2)
is followed by `take_policy`, which puts the mean of all agents' weights in the place of the agent's own.

`learn_values` and `learn_policy` are generators that pause after every minibatch, so that the node can pass messages on
meanwhile. A minibatch is worked through in chunks that fit the processor's cache; their gradients add up to the
minibatch's.

What must not change: A is standardised, and A_u centred and brought to scale, over the whole batch once; F multiplies
outside the minimum; the old log-probabilities are those of the stored inputs under the parameters that acted.

Source:
    algorithm 1 and eq. 20 of the Scal-MAPPO-L paper; the public MAPPO-L code for what the paper leaves open; for the
    other rows of the table the papers it names (docs/reference/algorithms/).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.learners.interface import AgentLearner, Bools, Floats
from node.learners.on_policy.multipliers import EpisodeCosts, Margins, Multipliers
from node.learners.on_policy.objectives import objective_of
from node.learners.on_policy.trust_region import Region
from node.numerics.advantage import standardised
from node.numerics.critics import Critics, Estimate, Shape
from node.numerics.networks import MLP, Trainer, chunks, torch_stream
from node.numerics.normalise import InputNorm, RunningScale
from node.numerics.policies import Actor, CategoricalActor, Distribution, GaussianActor
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose, stream
from scenarios.kinds import Kind
from scenarios.schema import Algorithm
from topology.snapshot import State

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
        factor: F, (B,); None: 1.
    """

    x: Tensor
    action: Tensor
    old: Distribution
    old_log_prob: Tensor
    advantage: Tensor
    costs: list[Tensor]
    factor: Tensor | None


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
        return {"clip_frac": self._clipped / self._n, "grad_norm": self._norm / self._n}


def make_actor(shape: Shape, algorithm: Algorithm) -> Actor:
    """An agent's policy: categorical where the action is a choice, Gaussian otherwise."""
    net = MLP(
        shape.actor_width,
        algorithm.hidden,
        shape.n_discrete or shape.act_dim,
        activation=algorithm.activation,
        layer_norm=algorithm.layer_norm,
        input_layer_norm=algorithm.input_norm == "layer",
        head_gain=algorithm.head_gain,
        generator=torch_stream(shape.seed, Purpose.INIT, 0 if algorithm.share_policy else shape.agent, 0),
    )
    if shape.n_discrete:
        return CategoricalActor(net, shape.n_discrete)
    return GaussianActor(net, shape.act_dim, std=algorithm.std, std_init=algorithm.std_init)


def total_log_ratio(log_ratios: Sequence[Floats]) -> NDArray[np.float64]:
    """Sum of log-ratios (B,), in double precision and in the order given."""
    total = np.zeros(len(log_ratios[0]))
    for log_ratio in log_ratios:
        total += log_ratio
    return total


class Learner(AgentLearner):
    """One agent's actor, critics and multipliers, and how they learn from a rollout."""

    always_explores = True

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        self._shape = shape
        self._algorithm = algorithm
        self._recipe = recipe = algorithm.recipe
        self._actor = make_actor(shape, algorithm)
        self._actor_trainer = Trainer(
            self._actor,
            lr=algorithm.actor_lr,
            eps=algorithm.adam_eps,
            max_grad_norm=algorithm.max_grad_norm,
            name="the actor",
        )
        self._actor_norm = InputNorm(shape.actor_width, running=algorithm.input_norm == "running")
        self._objective = None if recipe.objective == "trust_region" else objective_of(algorithm)
        self._critics = None if recipe.critic_scope == "central" else Critics(shape, algorithm)
        self._mults = Multipliers(algorithm, shape.cost_limits, shape.copies)
        self._margins = Margins(shape.cost_limits if recipe.constraint == "cpo" else (), shape.copies)
        self._costs = EpisodeCosts(shape.copies, len(shape.cost_limits), shape.cut_copies)
        self._cost_scales = [RunningScale(keep=SCALE_MEMORY, floor=SCALE_FLOOR * max(limit, 1.0)) for limit in shape.cost_limits]
        self._noise = np.zeros((0, 0, 0), np.float32)
        self._permutations: list[Tensor] = []
        self._reward = np.zeros((0, 0), np.float32)
        self._advantage = np.zeros(0)
        self._cost_advantages: list[NDArray[np.float64]] = []
        self._log_ratio = torch.zeros(0)
        self._score = 0.0
        self._answer: list[NDArray[np.float64]] = []  # what the central critic has answered: A and each A_u, (B,)
        self._coupling: Generator[Floats, Sequence[Floats], None] | None = None
        self._own_ratios = np.zeros(0, np.float32)  # on the minibatch
        self._metrics: dict[str, float] = {}

    # ---------------------------------------------------------------- acting

    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration noise, and fix the step sizes."""
        shape = self._shape
        draw = stream(shape.seed, Purpose.NOISE, shape.agent, round_)
        self._noise = self._actor.noise(draw if explore else None, shape.steps, shape.copies)
        fraction = self._algorithm.step_fraction(round_, shape.rounds)
        self._actor_trainer.decay(fraction)
        if self._critics is not None:
            self._critics.decay(fraction)

    def act(self, step: int, observation: Floats) -> Floats:
        """Actions (E, A) for the observation (E, D) of one step; a choice is its index, A = 1."""
        return self._actor.action(self._output(observation), self._noise[step])

    def sampled(self, observation: Floats, draw: np.random.Generator) -> Floats:
        """The same for any number of observations (B, D), with fresh chance."""
        return self._actor.action(self._output(observation), self._actor.noise(draw, 1, len(observation))[0])

    # -------------------------------------------------------------- learning

    def learn_values(self, round_: int, rollout: Rollout, reward: Floats) -> Iterator[None]:
        """Estimate advantages and train the critics; pauses after every minibatch.

        With corrected traces (`trace: preopc`) it only takes the round in: the critics are trained by `learn_policy`. With a
        central critic the advantages are those that it has answered.

        Args:
            round_: Round k.
            rollout: The samples.
            reward: (T, E) what to learn from: the agent's own reward, or a mean over its ball.
        """
        if self._critics is None:
            advantage, *costs = self._answer
            self.take_advantages(round_, rollout, advantage, costs)
            return
        self._begin_learning(round_, rollout)
        self._critics.begin(rollout)
        self._reward = reward
        if self._recipe.trace == "gae":
            estimates = self._critics.advantages(rollout, reward)
            self._take(estimates)
            yield from self._train_critics(estimates)
        if self._recipe.is_ranked:
            self._score = self.score(rollout)

    def take_advantages(
        self, round_: int, rollout: Rollout, advantage: NDArray[np.float64], costs: Sequence[NDArray[np.float64]]
    ) -> None:
        """Take the round in with the estimates of a central critic: A and each A_u, (B,), in their signals' units."""
        self._begin_learning(round_, rollout)
        self._advantage, self._cost_advantages = advantage, list(costs)
        self._metrics = {"advantage_std": float(advantage.std())}

    def score(self, rollout: Rollout, earlier: Sequence[Floats] = ()) -> float:
        """Mean |A| in reward units, corrected for agents that have moved: how much a greedy order wants this agent next.

        To be asked after `learn_values`; changes nothing.
        """
        assert self._critics is not None, "scores need a critic of the agent's own"
        reward, *_ = self._critics.advantages(rollout, self._reward, self._trace_weight(earlier))
        return float(np.abs(reward.advantage).mean())

    def learn_policy(self, rollout: Rollout, earlier: Sequence[Floats]) -> Iterator[None]:
        """Train the actor and step the multipliers; pauses after every minibatch.

        Args:
            rollout: The samples.
            earlier: Final log-ratios (B,) of the agents depended on, in the order in which they updated.
        """
        if self._recipe.trace == "preopc":
            yield from self._revalue(rollout, earlier)
        samples = self._samples(rollout, self._factor(earlier))
        self._mults.step(self._costs)
        if self._objective is None:
            yield from self._step_in_region(samples)
        else:
            self._objective.begin(1 + len(earlier), self._shape.reach)
            yield from self._ascend(samples)
        self._conclude(samples)

    def learn_coupled(self, rollout: Rollout) -> Generator[Floats, Sequence[Floats], None]:
        """Train the actor at the same time as others do, on their ratios as they are at every minibatch.

        Before each minibatch it yields its own log-ratios (M,) on it and is sent those of the others on the same
        samples, in ascending id; minibatches are drawn from a stream that all agents share.
        """
        assert self._objective is not None
        samples = self._samples(rollout, None)
        self._mults.step(self._costs)
        self._objective.begin(self._shape.reach, self._shape.reach)  # nobody is earlier: all have the last one's room
        tally = Tally()
        for permutation in self._permutations:
            for rows in permutation.tensor_split(self._algorithm.minibatches):
                with torch.no_grad():
                    new = self._actor.everywhere(samples.x[rows], self._algorithm.chunk)
                    mine = (new.log_prob(samples.action[rows]) - samples.old_log_prob[rows]).sum(-1)
                others = yield mine.numpy()
                self._minibatch(samples, rows, self._factor(others), tally)
        self._metrics |= tally.means()
        self._conclude(samples)

    def step_coupled(self, rollout: Rollout, others: Sequence[Floats]) -> None:
        """Take the others' log-ratios on the minibatch before, if any, and have its own on the next; the last call ends it."""
        if self._coupling is None:
            self._coupling = self.learn_coupled(rollout)
            self._own_ratios = next(self._coupling)
            return
        try:
            self._own_ratios = self._coupling.send(others)
        except StopIteration:
            self._coupling = None

    def gives(self, kind: Kind) -> Floats:
        """See `AgentLearner.gives`: ratios, scores, and the policy where all agents share one."""
        shape = self._shape
        match kind:
            case Kind.RATIO:
                return self.log_ratio().reshape(shape.steps, shape.copies).T
            case Kind.RATIO_MB:
                return self._own_ratios[:, None]
            case Kind.SCORE:
                return np.full((shape.copies, 1), self._score, np.float32)
            case Kind.PARAMETERS:
                return np.tile(self.policy(), (shape.copies, 1))
        return super().gives(kind)

    def takes(self, kind: Kind, origin: int, data: Floats, came: Bools) -> None:
        """See `AgentLearner.takes`: the central critic's advantages, 0 where they have not come, and the shared policy."""
        shape = self._shape
        if kind is Kind.ADVANTAGE:
            signals = data.reshape(shape.copies, shape.steps, -1).astype(np.float64)
            self._answer = list(np.where(came[:, None, None], signals, 0.0).transpose(2, 1, 0).reshape(signals.shape[2], -1))
        elif kind is Kind.SHARED:
            if came.any():  # copies feed one learner, so one copy suffices
                self.take_policy(data[came.argmax()].copy())
        else:
            super().takes(kind, origin, data, came)

    def permutations(self, round_: int) -> list[NDArray[np.intp]]:
        """The order (B,) of a round's samples in each pass; for agents that learn on each other's ratios, the same for all."""
        shape = self._shape
        key = (round_, Purpose.JOINT_SHUFFLE) if self._recipe.is_coupled else (Purpose.SHUFFLE, shape.agent, round_)
        draw = stream(shape.seed, *key)
        return [draw.permutation(shape.steps * shape.copies) for _ in range(self._algorithm.epochs)]

    def sit_out(self, rollout: Rollout) -> Mapping[str, float]:
        """A round without a turn, or without a node: nothing learnt is touched, and the ratios are 1; its metrics by name.

        Input statistics are part of the policy: whose turn it is not does without `end_round` too.
        """
        self._costs.take(rollout)
        self._log_ratio = torch.zeros(rollout.reward.size)
        self._score = 0.0
        self._metrics = {}
        return self._prices()

    def log_ratio(self) -> Floats:
        """Final log-ratios (B,), summed over action dimensions: what later agents need."""
        return self._log_ratio.numpy()

    def policy(self) -> Floats:
        """The weights of the actor, (P,)."""
        return self._actor_trainer.weights.detach().numpy()

    def take_policy(self, weights: Floats) -> None:
        """Go on with other weights of the actor, (P,); Adam's moments stay the agent's own."""
        with torch.no_grad():
            self._actor_trainer.weights.copy_(torch.from_numpy(weights))

    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """Let the input statistics take in the round; the round's metrics by name."""
        self._actor_norm.update(self._shape.for_actor(rollout.observation))
        if self._critics is not None:
            self._critics.end(rollout)
        return self._prices()

    # ------------------------------------------------------------- checkpoint

    def weights(self) -> dict[str, Tensor]:
        """All that makes up the policy and the critics, by name, in a fixed order."""
        tensors = {"actor": self._actor_trainer.weights.detach(), "actor_inputs": self._actor_norm.weights()}
        if self._critics is not None:
            tensors |= self._critics.weights()
        tensors["multipliers"] = torch.tensor(self._mults.values, dtype=torch.float64)
        return tensors

    def load_policy(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the actor from a checkpoint.

        Raises:
            ValueError: the checkpoint does not fit this scenario's networks.
        """
        for name, mine in (("actor", self._actor_trainer.weights), ("actor_inputs", self._actor_norm.weights())):
            if name not in tensors or tensors[name].shape != mine.shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ValueError(
                    f"checkpoint of agent {self._shape.agent}: {name} needs shape {tuple(mine.shape)}, found {found}"
                )
        with torch.no_grad():
            self._actor_trainer.weights.copy_(tensors["actor"])
        self._actor_norm.load(tensors["actor_inputs"])

    def state(self) -> State:
        """All that later rounds depend on, as it is between two rounds; what a round draws, `begin_round` draws again."""
        return {
            "actor": self._actor_trainer.state(),
            "actor_inputs": self._actor_norm.state(),
            "objective": None if self._objective is None else self._objective.state(),
            "critics": None if self._critics is None else self._critics.state(),
            "multipliers": self._mults.state(),
            "margins": self._margins.values,
            "episode_costs": self._costs.state(),
            "cost_scales": [scale.state() for scale in self._cost_scales],
        }

    def restore(self, state: State) -> None:
        """Take the state of a learner of the same agent and scenario."""
        self._actor_trainer.restore(state["actor"])
        self._actor_norm.restore(state["actor_inputs"])
        if self._objective is not None:
            self._objective.restore(state["objective"])
        if self._critics is not None:
            self._critics.restore(state["critics"])
        self._mults.restore(state["multipliers"])
        self._margins.values = state["margins"]
        self._costs.restore(state["episode_costs"])
        for scale, own in zip(self._cost_scales, state["cost_scales"], strict=True):
            scale.restore(own)

    # ---------------------------------------------------------------- pieces

    def _output(self, observation: Floats) -> Floats:
        with torch.inference_mode():
            x = torch.from_numpy(self._shape.for_actor(observation))
            return self._actor.net.forward(self._actor_norm(x)).numpy()  # forward: a call's hooks cost as much as a layer

    def _begin_learning(self, round_: int, rollout: Rollout) -> None:
        self._permutations = [torch.from_numpy(permutation) for permutation in self.permutations(round_)]
        self._costs.take(rollout)

    def _take(self, estimates: Sequence[Estimate]) -> None:
        self._advantage, *self._cost_advantages = [estimate.advantage for estimate in estimates]
        self._metrics["advantage_std"] = float(self._advantage.std())

    def _train_critics(self, estimates: Sequence[Estimate]) -> Iterator[None]:
        assert self._critics is not None
        self._critics.adopt(estimates)
        yield from self._critics.train(self._minibatches())
        self._metrics |= self._critics.metrics()

    def _revalue(self, rollout: Rollout, earlier: Sequence[Floats]) -> Iterator[None]:
        """Train the critics on corrected returns, then estimate once more with what they have learnt."""
        assert self._critics is not None
        weight = self._trace_weight(earlier)
        yield from self._train_critics(self._critics.advantages(rollout, self._reward, weight))
        self._take(self._critics.advantages(rollout, self._reward, weight))

    def _trace_weight(self, earlier: Sequence[Floats]) -> NDArray[np.float64] | None:
        """min(1, R), (T, E), R the product of the earlier agents' ratios."""
        if not earlier:
            return None
        return np.exp(np.minimum(total_log_ratio(earlier), 0.0)).reshape(self._shape.steps, self._shape.copies)

    def _samples(self, rollout: Rollout, factor: Tensor | None) -> Samples:
        shape = self._shape
        batch = shape.steps * shape.copies
        x = self._actor_norm(torch.from_numpy(shape.for_actor(rollout.observation)))
        action = torch.from_numpy(rollout.action.reshape(batch, -1))
        with torch.no_grad():
            old = self._actor.everywhere(x, self._algorithm.chunk).kept()
            old_log_prob = old.log_prob(action)
        advantage = torch.from_numpy(standardised(self._advantage).astype(np.float32))
        costs = [torch.from_numpy(cost.astype(np.float32)) for cost in self._scaled_costs()]
        return Samples(x, action, old, old_log_prob, advantage, costs, factor)

    def _scaled_costs(self) -> Iterator[NDArray[np.float64]]:
        """Each A_u, (B,), centred and brought to scale."""
        for u, (cost, running) in enumerate(zip(self._cost_advantages, self._cost_scales, strict=True)):
            self._metrics[f"cost_advantage_std_{u}"] = float(cost.std())
            if self._algorithm.cost_scale == "round":
                yield standardised(cost)
                continue
            self._metrics[f"cost_scale_{u}"] = scale = running.take(cost)
            yield (cost - cost.mean()) / scale

    def _ascend(self, samples: Samples) -> Iterator[None]:
        """First-order steps on every minibatch of every pass."""
        assert self._objective is not None
        tally = Tally()
        for permutation in self._permutations:
            for rows in permutation.tensor_split(self._algorithm.minibatches):
                self._minibatch(samples, rows, None if samples.factor is None else samples.factor[rows], tally)
                yield
            if self._objective.stops_early:
                with torch.no_grad():
                    if self._objective.is_done(samples.old, self._actor.everywhere(samples.x, self._algorithm.chunk)):
                        break
        self._metrics |= tally.means()

    def _minibatch(self, samples: Samples, rows: Tensor, factor: Tensor | None, tally: "Tally") -> None:
        assert self._objective is not None
        ratio = self._actor_step(samples, rows, factor)
        norm = self._actor_trainer.step()
        tally.add(norm, float(((ratio - 1.0).abs() > self._objective.width).float().mean()))
        if self._mults.ascends:
            joint = ratio if ratio.ndim == 1 else ratio.prod(-1)
            self._mults.ascend(self._costs, [float((joint * cost.index_select(0, rows)).mean()) for cost in samples.costs])

    def _mixed(self, advantage: Tensor, costs: Sequence[Tensor]) -> Tensor:
        """H, (M,): the advantage with the costs priced in."""
        if self._mults.values:
            for mult, cost in zip(self._mults.values, costs, strict=True):
                advantage = advantage - mult * cost
            advantage = advantage / self._mults.denominator
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
        algorithm = self._algorithm
        advantages, excess = [self._mixed(samples.advantage, samples.costs)], []
        if self._recipe.constraint == "cpo" and (means := self._costs.means) is not None:
            # in cost units, for they are held against a limit in these units
            advantages += [torch.from_numpy((cost - cost.mean()).astype(np.float32)) for cost in self._cost_advantages]
            self._margins.step(self._costs)
            # an episode's cost moves by its length times the mean over its steps of ratio·A_u, which is what the planes hold
            length = self._costs.mean_length
            targets = zip(means, self._shape.cost_limits, self._margins.values, strict=True)
            excess = [(mean - limit + margin) / length for mean, limit, margin in targets]
        if samples.factor is not None:
            advantages = [advantage * samples.factor for advantage in advantages]
        region = Region(
            actor=self._actor,
            weights=self._actor_trainer.weights,
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
        self._metrics |= metrics
        if self._mults.ascends:
            with torch.no_grad():
                new = self._actor.everywhere(samples.x, algorithm.chunk)
                ratio = torch.exp((new.log_prob(samples.action) - samples.old_log_prob).sum(-1))
            self._mults.ascend(self._costs, [float((ratio * cost).mean()) for cost in samples.costs])

    def _conclude(self, samples: Samples) -> None:
        with torch.no_grad():
            new = self._actor.everywhere(samples.x, self._algorithm.chunk)
            self._log_ratio = (new.log_prob(samples.action) - samples.old_log_prob).sum(-1)
            kl = samples.old.kl(new)
            self._metrics |= {"kl": float(kl.mean()), "entropy": float(new.entropy()), **self._actor.metrics()}
        if self._objective is not None:
            self._metrics |= self._objective.metrics()
            self._objective.end(kl)

    def _prices(self) -> Mapping[str, float]:
        """The round's metrics, with multipliers and episode costs."""
        for u, mult in enumerate(self._mults.values):
            self._metrics[f"multiplier_{u}"] = mult
        for u, margin in enumerate(self._margins.values):
            self._metrics[f"margin_{u}"] = margin
        for u, cost in enumerate(self._costs.means or ()):
            self._metrics[f"episode_cost_{u}"] = cost
        return self._metrics

    def _factor(self, earlier: Sequence[Floats]) -> Tensor | None:
        """F, (B,): the product of the earlier agents' final ratios, summed as logarithms in double precision."""
        return torch.from_numpy(np.exp(total_log_ratio(earlier)).astype(np.float32)) if earlier else None

    def _minibatches(self) -> Iterator[Tensor]:
        for permutation in self._permutations:
            yield from permutation.tensor_split(self._algorithm.minibatches)
