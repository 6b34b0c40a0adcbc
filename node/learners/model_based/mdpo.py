"""MDPO's learner: the on-policy learner of one agent, on samples that its model makes up of the round to come.

Theory of operation. The round's samples go into the model and nowhere else. The model then makes up as many: branches that
begin at states of the round, drawn evenly, and go on for a few steps with the agent's own policy as it acted
(`algorithm.world_model.branch`). Laid end to end in E columns of T steps they are a rollout like any other, so advantages,
critics and the objective are those of `node.learners.on_policy.learner`, which knows of no model. A branch that has had its
steps counts as cut by a time limit: it is bootstrapped with the value of the observation that it led to. A branch that the model
terminates bootstraps nothing, and the rest of its steps begins again at another state of the round.

Input statistics and episodes' metrics remain the real round's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from node.learners.model_based.world_model import WorldModel
from node.learners.off_policy.action_values import Samples
from node.learners.on_policy.learner import Learner
from node.numerics.critics import Shape
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose, stream
from scenarios.schema import Algorithm

Floats = NDArray[np.float32]


@runtime_checkable
class Model(Protocol):
    """What branches need of a model."""

    def step(self, observation: Floats, action: Floats, draw: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """From observations (B, D) and actions (B, A): the observations after them (B, D), rewards (B,), terminations (B,)."""


def branched(
    model: Model,
    policy: Callable[[Floats, np.random.Generator], Floats],
    observations: Floats,
    *,
    steps: int,
    copies: int,
    branch: int,
    draw: np.random.Generator,
) -> Rollout:
    """Branches of a model, laid out as a rollout.

    Args:
        model: Where an action leads.
        policy: Actions (B, A) for observations (B, D).
        observations: Where branches may begin, (N, D).
        steps: T.
        copies: E.
        branch: Steps of a branch; the last one of a copy is shorter where they do not fit.
        draw: Chance.

    Returns:
        T·E samples without costs.
    """
    pieces = -(-steps // branch)
    fresh = observations[draw.integers(len(observations), size=(branch, pieces * copies))]
    observation, told = fresh[0], []
    for step in range(branch):
        action = policy(observation, draw)
        following, reward, terminated = model.step(observation, action, draw)
        told.append((observation, action, reward, terminated, following))
        observation = np.where(terminated[:, None], fresh[(step + 1) % branch], following)

    def laid_out(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """(branch, pieces·E, ...) as (T, E, ...)."""
        table = np.stack(parts)
        table = table.reshape(branch, pieces, copies, *table.shape[2:]).swapaxes(0, 1)
        return np.ascontiguousarray(table.reshape(pieces * branch, copies, *table.shape[3:])[:steps])

    observation, action, reward, terminated, following = (laid_out(parts) for parts in zip(*told, strict=True))
    rollout = Rollout(
        observation, action, reward, np.zeros((steps, copies, 0), np.float32), terminated, np.zeros_like(terminated)
    )
    rollout.truncated[branch - 1 :: branch] = ~rollout.terminated[branch - 1 :: branch]
    cuts = rollout.cuts()
    rollout.cut_observation = following[cuts[:, 0], cuts[:, 1]]
    return rollout


class ImaginingLearner(Learner):
    """One agent's actor and critic, and the model whose samples they learn from."""

    STATE = ("_model",)

    def __init__(self, shape: Shape, algorithm: Algorithm) -> None:
        super().__init__(shape, algorithm)
        self._model = WorldModel(shape, algorithm)
        self._imagined = Rollout.make(0, shape.copies, 0, 0, 0)

    def begin_round(self, round_: int, *, explore: bool = True) -> None:
        """Draw the round's exploration noise, and fix the step sizes, the model's too."""
        super().begin_round(round_, explore=explore)
        self._model.decay(self._algorithm.step_fraction(round_, self._shape.rounds, self._shape.extended))

    def learn_values(self, round_: int, rollout: Rollout, reward: Floats) -> Iterator[None]:
        """Learn the model from the round, make branches up, and train the critics on them; pauses after every minibatch."""
        shape = self._shape
        draw = stream(shape.seed, Purpose.MODEL, shape.agent, 1, round_)
        batch = shape.steps * shape.copies
        observations = rollout.observation.reshape(batch, -1).copy()
        fresh = Samples(
            observation=observations,
            action=rollout.action.reshape(batch, -1).copy(),
            reward=reward.reshape(batch).copy(),
            following=rollout.following().reshape(batch, -1),
            terminated=rollout.terminated.reshape(batch).copy(),
        )
        self._model.take(fresh, draw)
        yield from self._model.fit(draw)
        self._imagined = branched(
            self._model,
            self.sampled,
            observations,
            steps=shape.steps,
            copies=shape.copies,
            branch=self._algorithm.world_model.branch,
            draw=draw,
        )
        yield from super().learn_values(round_, self._imagined, self._imagined.reward)

    def learn_policy(self, rollout: Rollout, earlier: Sequence[Floats]) -> Iterator[None]:
        """Train the actor on the branches; pauses after every minibatch."""
        yield from super().learn_policy(self._imagined, earlier)

    def end_round(self, rollout: Rollout) -> Mapping[str, float]:
        """Let the input statistics take in the round that was; the round's metrics by name."""
        return {**super().end_round(rollout), **self._model.metrics()}

    # ------------------------------------------------------------- checkpoint

    def weights(self) -> dict[str, Tensor]:
        """All that makes up the policy, the critics and the model, by name, in a fixed order."""
        return super().weights() | self._model.weights()
