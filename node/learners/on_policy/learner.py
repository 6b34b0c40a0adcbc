"""The on-policy learner: one loop for every row of the recipe table.

Theory of operation. After a rollout of B = T·E samples an agent (1) values every sample and every cut, estimates
advantages of its reward and of each cost, and trains its critics; (2) once it holds the final ratios of the agents it
depends on, trains its actor on

    maximise mean[ F · gain(rho, H) ] + c_H·entropy,      H = A - sum_u mult_u·A_u,

H divided by 1 + sum_u mult_u where it is weighed against something else (`Multipliers.denominator`); (3) computes its own
final log-ratios for later agents. (1) needs no other agent, so all agents do it at once; only (2) is ever sequential.
Splitting the two changes no number, because actor and critics share nothing but the order of the minibatches, which is drawn
once per round.

The recipe's axes enter at these places and at no other:

- objective: `gain` is an object of `node.learners.on_policy.objectives`; a trust region takes (2) in one step of
`node.learners.on_policy.trust_region`.
- constraint: multipliers are stepped with every minibatch (lagrangian) or once before (2) (pid_lagrangian, focops); cpo has
none, the costs go into the trust region's step.
- trace: with preopc advantages depend on the earlier agents' ratios, so (1) waits for them and becomes a part of (2).
- order "simultaneous" with the double clip: (2) is `PolicyTraining.train_coupled`, which asks for the others' ratios at every
minibatch. Order "alternating": an agent that has not its turn does `sit_out` instead of (1) to (3).
- critic scope "central": the agent has no critics, and (1) takes what the central critic has answered. With a shared policy (2)
is followed by `take_policy`, which puts the mean of all agents' weights in the place of the agent's own.
- consensus: (2) is followed by a step of `node.learners.on_policy.consensus` towards what neighbours have sent.

`learn_values` and `learn_policy` are generators that pause after every minibatch, so that the node can pass messages on
meanwhile. What is here is acting, values and what is exchanged with others; (2) itself is
`node.learners.on_policy.policy_training`.

What must not change: A is standardised, and A_u centred and brought to scale, over the whole batch once; F multiplies
outside the minimum; the old log-probabilities are those of the stored inputs under the parameters that acted.

Source:
    algorithm 1 and eq. 20 of the Scal-MAPPO-L paper; the public MAPPO-L code for what the paper leaves open; for the
    other rows of the table the papers it names (docs/reference/algorithms/).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from node.learners.interface import AgentLearner, Bools, Floats, Origin
from node.learners.on_policy.consensus import Gossip, Prices, parts_of
from node.learners.on_policy.multipliers import SharedMultipliers
from node.learners.on_policy.policy_training import PolicyTraining, Samples, total_log_ratio
from node.numerics.critics import Critics, Estimate, Shape
from node.numerics.networks import MLP, Trainer, torch_stream
from node.numerics.normalise import InputNorm, Standardised
from node.numerics.policies import UNAVAILABLE, Actor, CategoricalActor, GaussianActor
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose, stream
from scenarios.kinds import Kind
from scenarios.schema import Algorithm

FEWEST = 2  # samples that an agent must have taken part in to learn from a round


def make_actor(shape: Shape, algorithm: Algorithm) -> Actor:
    """An agent's policy: categorical where the action is a choice, Gaussian otherwise."""
    starts_alike = algorithm.share_policy or algorithm.recipe.averages_policy
    net = MLP(
        shape.actor_width,
        algorithm.hidden,
        shape.n_discrete or shape.act_dim,
        activation=algorithm.activation,
        layer_norm=algorithm.layer_norm,
        input_layer_norm=algorithm.input_norm == "layer",
        head_gain=algorithm.head_gain,
        generator=torch_stream(shape.seed, Purpose.INIT, 0 if starts_alike else shape.agent, 0),
    )
    if shape.n_discrete:
        return CategoricalActor(net, shape.n_discrete, is_masked=shape.mask is not None)
    return GaussianActor(net, shape.act_dim, std=algorithm.std, std_init=algorithm.std_init)


class Learner(AgentLearner):
    """One agent's actor, critics and multipliers, and how they learn from a rollout."""

    STATE: ClassVar[tuple[str, ...]] = ("_actor_trainer", "_actor_norm", "_critics", "_training")

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
        self._training = PolicyTraining(shape, algorithm, self._actor, self._actor_trainer, self._actor_norm)
        self._critics = None if recipe.critic_scope == "central" else Critics(shape, algorithm)
        self._gossip = Gossip(parts_of(recipe, self._actor_trainer, self._actor_norm, self._critics), shape.degree)
        mults = self._training.mults
        self._prices = Gossip([Prices(mults)] if isinstance(mults, SharedMultipliers) else [], shape.degree)
        self._noise = np.zeros((0, 0, 0), np.float32)
        self._permutations: list[Tensor] = []
        self._reward = np.zeros((0, 0), np.float32)
        self._advantage = np.zeros(0)
        self._cost_advantages: list[NDArray[np.float64]] = []
        self._score = 0.0
        self._answer: list[NDArray[np.float64]] = []  # what the central critic has answered: A and each A_u, (B,)
        self._coupling: Generator[Floats, Sequence[Floats], None] | None = None
        self._own_ratios = np.zeros(0, np.float32)  # on the minibatch
        self._metrics: dict[str, float] = {}
        self._there: Bools | None = None  # samples of the round in which the agent took part, (B,); None: all

    # ---------------------------------------------------------------- acting

    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration noise, and fix the step sizes."""
        shape = self._shape
        draw = stream(shape.seed, Purpose.NOISE, shape.agent, round_)
        self._noise = self._actor.noise(draw if explore else None, shape.steps, shape.copies)
        fraction = self._algorithm.step_fraction(round_, shape.rounds, shape.extended)
        self._actor_trainer.decay(fraction)
        if self._critics is not None:
            self._critics.decay(fraction)

    def act(self, step: int, observation: Floats) -> Floats:
        """Actions (E, A) for the observation (E, D) of one step; a choice is its index, A = 1."""
        return self._actor.action(self._output(observation), self._noise[step])

    def module(self) -> nn.Module:
        """See `AgentLearner.module`: means of actions, or logits of choices."""
        return Standardised(self._actor_norm, self._actor.net)

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
        if not self._begin_learning(round_, rollout):
            return
        self._critics.begin(rollout)
        self._reward = reward
        if self._recipe.trace == "gae":
            estimates = self._critics.advantages(rollout, reward)
            self._take(*_advantages(estimates))
            yield from self._train_critics(estimates)
        if self._recipe.is_ranked:
            self._score = self.score(rollout)

    def take_advantages(
        self, round_: int, rollout: Rollout, advantage: NDArray[np.float64], costs: Sequence[NDArray[np.float64]]
    ) -> None:
        """Take the round in with the estimates of a central critic: A and each A_u, (B,), in their signals' units."""
        if self._begin_learning(round_, rollout):
            self._take(advantage, costs)

    def score(self, rollout: Rollout, earlier: Sequence[Floats] = ()) -> float:
        """Mean |A| in reward units, corrected for agents that have moved: how much a greedy order wants this agent next.

        To be asked after `learn_values`; changes nothing.
        """
        assert self._critics is not None, "scores need a critic of the agent's own"
        reward, *_ = self._critics.advantages(rollout, self._reward, self._trace_weight(earlier))
        there = self._there
        return float(np.abs(reward.advantage if there is None else reward.advantage[there]).mean())

    def learn_policy(self, rollout: Rollout, earlier: Sequence[Floats]) -> Iterator[None]:
        """Train the actor and step the multipliers; pauses after every minibatch.

        Args:
            rollout: The samples.
            earlier: Final log-ratios (B,) of the agents depended on, in the order in which they updated.
        """
        if self._is_absent:
            return
        if self._recipe.trace == "preopc":
            yield from self._revalue(rollout, earlier)
        yield from self._training.train(self._samples(rollout, earlier), self._permutations, 1 + len(earlier))

    def learn_coupled(self, rollout: Rollout) -> Generator[Floats, Sequence[Floats], None]:
        """The same beside others that learn at once, on their ratios: see `PolicyTraining.train_coupled`."""
        if self._is_absent:
            return self._wait_coupled()
        return self._training.train_coupled(self._samples(rollout), self._permutations)

    def _wait_coupled(self) -> Generator[Floats, Sequence[Floats], None]:
        """The same of an agent that does not learn: its ratios are 1."""
        for permutation in self._permutations:
            for rows in permutation.tensor_split(self._algorithm.minibatches):
                yield np.zeros(len(rows), np.float32)

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
        """See `AgentLearner.gives`: ratios, scores, the policy where all agents share one, and what neighbours average."""
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
            case Kind.CONSENSUS:
                return np.tile(self._gossip.gives(), (shape.copies, 1))
            case Kind.MULTIPLIER:
                return np.tile(self._prices.gives(), (shape.copies, 1))
        return super().gives(kind)

    def takes(self, kind: Kind, origin: int, data: Floats, came: Bools) -> None:
        """See `AgentLearner.takes`: the central critic's advantages, 0 where they have not come, the policy of all, gossip."""
        shape = self._shape
        if kind is Kind.ADVANTAGE:
            signals = data.reshape(shape.copies, shape.steps, -1).astype(np.float64)
            self._answer = list(np.where(came[:, None, None], signals, 0.0).transpose(2, 1, 0).reshape(signals.shape[2], -1))
        elif kind is Kind.SHARED:
            if came.any():  # copies feed one learner, so one copy suffices
                self.take_policy(data[came.argmax()].copy())
        elif kind is Kind.CONSENSUS:
            self._gossip.takes(data[came.argmax()], float(came.mean()))
        elif kind is Kind.MULTIPLIER:
            self._prices.takes(data[came.argmax()], float(came.mean()))
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
        self._training.costs.take(rollout, self._shape.takes_part(rollout.observation))
        self._training.sit_out(rollout.reward.size)
        self._score = 0.0
        self._metrics = {}
        return self._told()

    def log_ratio(self) -> Floats:
        """Final log-ratios (B,), summed over action dimensions: what later agents need."""
        return self._training.log_ratio.numpy()

    def policy(self) -> Floats:
        """The weights of the actor, (P,)."""
        return self._actor_trainer.weights.detach().numpy()

    def take_policy(self, weights: Floats) -> None:
        """Go on with other weights of the actor, (P,); Adam's moments stay the agent's own."""
        with torch.no_grad():
            self._actor_trainer.weights.copy_(torch.from_numpy(weights))

    def agreeing(self) -> Mapping[str, Floats]:
        """See `AgentLearner.agreeing`."""
        return self._gossip.weights()

    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """Let the input statistics take in the round; the round's metrics by name."""
        inputs, there = self._shape.for_actor(rollout.observation), self._shape.takes_part(rollout.observation)
        self._actor_norm.update(inputs if there is None else inputs[there])
        if self._critics is not None:
            self._critics.end(rollout)
        return self._told()

    # ------------------------------------------------------------- checkpoint

    def weights(self) -> dict[str, Tensor]:
        """All that makes up the policy and the critics, by name, in a fixed order."""
        tensors = {"actor": self._actor_trainer.weights.detach(), "actor_inputs": self._actor_norm.weights()}
        if self._critics is not None:
            tensors |= self._critics.weights()
        tensors["multipliers"] = torch.tensor(self._training.mults.values, dtype=torch.float64)
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

    def inherit(self, origin: Origin) -> None:
        """See `AgentLearner.inherit`: the actor, the critics, the statistics of inputs and returns, and the multipliers.

        Multipliers begin at `mult_init` where the other run had none.

        Raises:
            ValueError: something does not fit.
        """
        actor, mults = origin.actor, self._training.mults
        try:
            self._actor_trainer.take(actor.network("actor", self._actor, self._actor.net.first))
            self._actor_norm.inherit(actor.statistics("actor_inputs"), actor.inputs, actor.samples)
            if self._critics is not None:
                self._critics.inherit(origin.critics)
            known = actor.tensors.get("multipliers")
            if known is not None and known.shape == (len(mults.values),):
                mults.begin(known.tolist())
        except ValueError as error:
            raise ValueError(f"init_from: agent {self._shape.agent}: {error}") from None

    # ---------------------------------------------------------------- pieces

    def _output(self, observation: Floats) -> Floats:
        with torch.inference_mode():
            x = torch.from_numpy(self._shape.for_actor(observation))
            output = self._actor.net.forward(self._actor_norm(x)).numpy()  # forward: a call's hooks cost as much as a layer
        if (available := self._shape.available(observation)) is not None:
            output[~available] = UNAVAILABLE
        return output

    def _begin_learning(self, round_: int, rollout: Rollout) -> bool:
        """Whether there is enough to learn from."""
        self._permutations = [torch.from_numpy(permutation) for permutation in self.permutations(round_)]
        self._there = self._shape.takes_part(rollout.observation)
        self._training.costs.take(rollout, self._there)
        self._metrics = {}
        if self._is_absent:
            self._training.sit_out(rollout.reward.size)
            self._score = 0.0
        return not self._is_absent

    @property
    def _is_absent(self) -> bool:
        """Whether the agent took part in too few samples of the round to learn from them."""
        return self._there is not None and int(self._there.sum()) < FEWEST

    def _take(self, advantage: NDArray[np.float64], costs: Sequence[NDArray[np.float64]]) -> None:
        self._advantage, self._cost_advantages = advantage, list(costs)
        there = self._there
        self._metrics["advantage_std"] = float((self._advantage if there is None else self._advantage[there]).std())

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
        self._take(*_advantages(self._critics.advantages(rollout, self._reward, weight)))

    def _trace_weight(self, earlier: Sequence[Floats]) -> NDArray[np.float64] | None:
        """min(1, R), (T, E), R the product of the earlier agents' ratios."""
        if not earlier:
            return None
        return np.exp(np.minimum(total_log_ratio(earlier), 0.0)).reshape(self._shape.steps, self._shape.copies)

    def _samples(self, rollout: Rollout, earlier: Sequence[Floats] = ()) -> Samples:
        return self._training.samples(rollout, self._advantage, self._cost_advantages, earlier)

    def _told(self) -> Mapping[str, float]:
        """The round's metrics, of critics, actor and prices."""
        return {**self._metrics, **self._training.metrics, **self._training.prices()}

    def _minibatches(self) -> Iterator[Tensor]:
        for permutation in self._permutations:
            yield from permutation.tensor_split(self._algorithm.minibatches)


def _advantages(estimates: Sequence[Estimate]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """A and each A_u."""
    reward, *costs = [estimate.advantage for estimate in estimates]
    return reward, costs
