"""Limits on costs: what the last episodes have cost, and the multipliers that price it.

Theory of operation. `EpisodeCosts` takes every round in and holds J, the mean cost of the last E whole episodes (of all that
ended in the round, if more did). `Multipliers` steps one multiplier per limit by the rule that the recipe names:

- "pid_lagrangian": once per round, before the policy is trained, and only after an episode has ended since the last step;
- "focops": likewise, by the excess alone;
- "lagrangian": with every minibatch, by the last known J and the minibatch's own cost advantage.

Each agent holds its limits against its own costs, or, where a budget is shared, against an estimate of the mean over all agents
(`SharedMultipliers`), which takes no more than messages between neighbours.

"cpo" has no multipliers, but aims below its limits by `Margins`.

What must not change: an episode enters J once, and an episode that was cut short by a limit of its own (`Deployment.cut_copies`)
or by a fault of the simulation never does.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from node.numerics.losses import multiplier_step, pid_step
from node.numerics.rollout import Rollout
from scenarios.schema import Algorithm
from topology.snapshot import Stateful

PRICED = ("lagrangian", "pid_lagrangian", "focops")  # constraints with multipliers


class EpisodeCosts(Stateful):
    """Costs and lengths of the last whole episodes that one agent was charged for.

    Args:
        copies: E.
        n_costs: m.
        cut_copies: Copies whose first episode is not whole.

    Attributes:
        fresh: Whole episodes that have ended since `share` was last asked.
    """

    STATE = ("_running", "_last", "fresh")

    def __init__(self, copies: int, n_costs: int, cut_copies: Sequence[int] = ()) -> None:
        self._running = np.zeros((copies, n_costs + 1))  # costs so far, and steps in the last column
        self._running[list(cut_copies)] = np.nan  # sums stay NaN until the episode ends
        self._last = np.zeros((0, n_costs + 1))
        self.fresh = 0

    def take(self, rollout: Rollout, there: NDArray[np.bool_] | None = None) -> None:
        """Take a round in; steps count where the agent is `there`, (B,), None: all."""
        steps = np.ones(rollout.reward.shape) if there is None else there.reshape(rollout.reward.shape)
        copies, width = self._running.shape
        ended = [self._last]
        for step, (cost, is_over) in enumerate(zip(rollout.cost, rollout.terminated | rollout.truncated, strict=True)):
            self._running[:, :-1] += cost[:, : width - 1]
            self._running[:, -1] += steps[step]
            if is_over.any():
                if (faults := rollout.faults.get(step)) is not None:  # what such an episode would have cost is not known
                    self._running[faults] = np.nan
                ended.append(self._running[is_over])
                self._running[is_over] = 0.0
        whole = np.concatenate(ended)
        whole = whole[~np.isnan(whole[:, -1])]
        fresh = len(whole) - len(self._last)
        self._last = whole[-max(copies, fresh) :]
        self.fresh += fresh

    def share(self, copies: int) -> float:
        """The fresh episodes as a part of E, at most 1, for the one step that is made by them."""
        share, self.fresh = min(self.fresh / copies, 1.0), 0
        return share

    @property
    def means(self) -> list[float] | None:
        """J of each cost; None before the first whole episode has ended."""
        return [float(mean) for mean in self._last[:, :-1].mean(axis=0)] if len(self._last) else None

    @property
    def mean_length(self) -> float:
        """Mean number of steps of the same episodes; NaN before the first has ended."""
        return float(self._last[:, -1].mean()) if len(self._last) else float("nan")


class Margins(Stateful):
    """How far below its limit each cost is aimed at, where steps are planned by a linear model of costs ("cpo").

    Such a model is off to the same side in every round: costs curve upwards, and their slopes come from the samples that the
    step is fitted to. Aimed at the limit itself, costs settle above it. So the margin is the integral of the excess: it grows
    while costs are above their limit and shrinks while they are below.

    Args:
        limits: b of each cost.
        copies: E.

    Attributes:
        values: Margins in cost units, from 0 to `WIDEST` of the limit.
    """

    STATE = ("values",)

    GAIN = 0.2  # of the excess, per E new episodes
    WIDEST = 0.2

    def __init__(self, limits: Sequence[float], copies: int) -> None:
        self._limits = limits
        self._copies = copies
        self.values = [0.0] * len(limits)

    def step(self, costs: EpisodeCosts) -> None:
        """Step once per round, if any whole episode has ended since the last time."""
        means = costs.means
        if means is None or not costs.fresh:
            return
        share = costs.share(self._copies)
        for u, (limit, mean) in enumerate(zip(self._limits, means, strict=True)):
            self.values[u] = min(max(self.values[u] + self.GAIN * share * (mean - limit), 0.0), self.WIDEST * limit)


class Multipliers(Stateful):
    """One multiplier per limit; none where the recipe prices no costs.

    Args:
        algorithm: Hyperparameters.
        limits: b of each cost.
        copies: E.

    Attributes:
        values: The multipliers as they are.
    """

    STATE: ClassVar[tuple[str, ...]] = ("values", "_integrals", "_excesses")

    def __init__(self, algorithm: Algorithm, limits: Sequence[float], copies: int) -> None:
        self._algorithm = algorithm
        self._rule = algorithm.recipe.constraint
        self._limits = limits if self._rule in PRICED else ()
        self._copies = copies
        weighed = algorithm.entropy_coef > 0 or algorithm.recipe.objective in ("kl_penalty", "focops")
        self._divides = self._rule == "pid_lagrangian" and weighed
        self.values = [algorithm.mult_init] * len(self._limits)
        self._integrals = list(self.values)
        self._excesses: list[float] | None = None

    def begin(self, values: Sequence[float]) -> None:
        """Begin with these instead of `mult_init`; the integrals of "pid_lagrangian" begin there too."""
        self.values = [min(value, self._algorithm.mult_max) for value in values]
        self._integrals = list(self.values)

    @property
    def denominator(self) -> float:
        """What the advantage with costs priced in is divided by: 1 + sum of multipliers where it is weighed against more.

        With "pid_lagrangian" an entropy bonus, a price of divergence or FOCOPS's temperature then keeps its weight whatever the
        multipliers are. Alone, a clipped ratio or a trust region does not mind the scale: Adam and the region take it out.
        """
        return 1.0 + sum(self.values) if self._divides else 1.0

    def charged(self, costs: EpisodeCosts) -> list[float] | None:
        """J of each cost, as it is held against its limit; None before it is known."""
        return costs.means

    def metrics(self) -> Mapping[str, float]:
        """The multipliers by name."""
        return {f"multiplier_{u}": mult for u, mult in enumerate(self.values)}

    @property
    def ascends(self) -> bool:
        """Whether they are stepped after every minibatch, by `ascend`."""
        return self._rule == "lagrangian"

    def step(self, costs: EpisodeCosts) -> None:
        """Step once per round, before the policy is trained, if any whole episode has ended since the last time."""
        means = self.charged(costs)
        if self._rule not in ("pid_lagrangian", "focops") or means is None or not costs.fresh:
            return
        share = costs.share(self._copies)
        if self._rule == "focops":
            self._ascend([0.0] * len(self.values), means, gamma=0.0, lr=share * self._algorithm.mult_lr)
        else:
            self._control(means, share)

    def ascend(self, costs: EpisodeCosts, mean_ratio_costs: Sequence[float]) -> None:
        """Step after a minibatch, whose mean(ratio·A_u) of each cost is given; where they are not stepped so, change nothing."""
        means = self.charged(costs)
        if self.ascends and means is not None:
            self._ascend(mean_ratio_costs, means, gamma=self._algorithm.gamma, lr=self._algorithm.mult_lr)

    def _ascend(self, mean_ratio_costs: Sequence[float], means: Sequence[float], *, gamma: float, lr: float) -> None:
        for u, (limit, mean, mean_ratio_cost) in enumerate(zip(self._limits, means, mean_ratio_costs, strict=True)):
            self.values[u] = multiplier_step(
                self.values[u],
                episode_cost=mean,
                limit=limit,
                gamma=gamma,
                mean_ratio_cost=mean_ratio_cost,
                lr=lr,
                top=self._algorithm.mult_max,
            )

    def _control(self, means: Sequence[float], share: float) -> None:
        algorithm = self._algorithm
        before = self._excesses
        self._excesses = []
        for u, (limit, mean) in enumerate(zip(self._limits, means, strict=True)):
            self.values[u], self._integrals[u], excess = pid_step(
                self._integrals[u],
                episode_cost=mean,
                limit=limit,
                before=None if before is None else before[u],
                share=share,
                gains=(algorithm.mult_kp, algorithm.mult_ki, algorithm.mult_kd),
                top=algorithm.mult_max,
            )
            self._excesses.append(excess)


class SharedMultipliers(Multipliers):
    """Multipliers of limits on the mean over all agents of what each is charged with, on which neighbours agree.

    Every agent tracks that mean: its estimate y_i starts at the limit, moves by as much as its own J_i does, and is averaged with
    the neighbours' after every round (`node.learners.on_policy.consensus`). Averaging leaves the mean over agents where it is, so
    the mean of all y_i is the mean of all J_i. A message that is lost one way alone breaks that; so y_i also leaks towards J_i,
    which takes such an error away again. The rule of the recipe then steps multipliers by y_i, and the multipliers are averaged
    too, so that all agents come to one price.

    Source:
        agreement on multipliers: Chang, Nedić, Scaglione 2014 (arXiv:1403.3283), consensus-based primal-dual perturbation;
        tracking of a mean that moves: Zhu, Martínez 2010, "Discrete-time dynamic average consensus". The leak is ours.

    Attributes:
        estimates: y of each cost.
    """

    STATE: ClassVar[tuple[str, ...]] = ("estimates", "_tracked")

    LEAK = 0.02  # of the difference, per round

    def __init__(self, algorithm: Algorithm, limits: Sequence[float], copies: int) -> None:
        super().__init__(algorithm, limits, copies)
        self.estimates = [float(limit) for limit in limits]
        self._tracked = list(self.estimates)  # J, as far as it is in the estimates

    def step(self, costs: EpisodeCosts) -> None:
        """Track what has been charged since the last round, then step as other multipliers do."""
        if (means := costs.means) is not None:
            for u, mean in enumerate(means):
                self.estimates[u] += mean - self._tracked[u]
                self.estimates[u] += self.LEAK * (mean - self.estimates[u])
            self._tracked = means
        super().step(costs)

    def charged(self, costs: EpisodeCosts) -> list[float] | None:
        """The estimates; None before the agent's own first episode has ended."""
        return None if costs.means is None else self.estimates

    def metrics(self) -> Mapping[str, float]:
        """The multipliers and the estimates by name."""
        return {**super().metrics(), **{f"mean_cost_{u}": estimate for u, estimate in enumerate(self.estimates)}}

    @property
    def agreed_on(self) -> NDArray[np.float64]:
        """What neighbours average: estimates, then multipliers without what they owe to the present excess, (2m,)."""
        return np.array([*self.estimates, *(self._integrals if self._is_controlled else self.values)])

    def move(self, change: NDArray[np.float64]) -> None:
        """Change what neighbours average by (2m,); multipliers stay within their bounds."""
        estimates, prices = (self.agreed_on + change).reshape(2, -1)
        self.estimates, bounded = estimates.tolist(), prices.clip(0.0, self._algorithm.mult_max).tolist()
        if self._is_controlled:
            self._integrals = bounded
        else:
            self.values = bounded

    @property
    def _is_controlled(self) -> bool:
        return self._rule == "pid_lagrangian"
