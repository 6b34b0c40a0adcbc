"""Whether a run kept its limits on costs, and if not, why: one sentence per limit.

Theory of operation. `evidence` collects what a run recorded about one limit, `judge` decides from that alone. The cost that is
judged is the mean over the episodes of the evaluation at the end, in which policies draw their actions unless the scenario says
otherwise: the multiplier holds the cost of the policy that draws, and the mean action is another policy. Where there was no
evaluation, it is the mean over the training episodes that the run's metrics are about. Where each agent is charged with its own
cost (`env.cost: local`) a limit holds for every agent, so it is that of the agent that pays most; where agents share a budget
(`algorithm.constraint_scope: consensus`) it is the mean over agents. Evaluations record what each
agent is charged with. Training records the team's cost of an episode, and the agents' own as means over rounds: there it is the
mean over the last tenth of the rounds.

Causes are facts that explain an exceeded limit each by itself; several may hold at once.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from scipy import stats

from coordinator.records.database import Results
from coordinator.records.plan import Plan

CONFIDENCE = 0.95
AT_BOUND = 0.99  # of mult_max, from which on a multiplier counts as at its bound
RISEN = (
    1.05  # a multiplier counts as rising if its mean over the last tenth of the rounds is so many times that of the tenth before
)
GONE = 0.1  # of the spread at the start, below which it counts as gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one limit at the end of a run.

    Attributes:
        name: What the cost is called.
        limit: b.
        costs: Cost of each episode that counts; with costs of the agents' own that of `worst`, if it is known by episode.
        evaluated: How the team was evaluated in them; "": they are of the training, exploration included.
        learns: Whether the team learns in this run; else it is the same all along.
        worst: With costs of the agents' own: what the agent that pays most is called, and how much it pays on average (None:
            `costs` are its own). None: the cost is the team's.
        shared: Where the limit is on the mean over agents, and known by round alone: that mean.
        heeds: Whether the algorithm minds costs at all.
        algorithm: Its name.
        idle: Mean cost of an episode in which all agents give the zero action; None: not measured.
        multipliers: Mean over agents, by round; empty where there are none.
        mult_max: Their upper bound.
        spreads: Mean standard deviation of actions over agents, by round; empty where actions are choices.
    """

    name: str
    limit: float
    costs: Sequence[float]
    evaluated: str = ""
    learns: bool = True
    worst: tuple[str, float | None] | None = None
    shared: float | None = None
    heeds: bool = True
    algorithm: str = ""
    idle: float | None = None
    multipliers: Sequence[float] = ()
    mult_max: float = math.inf
    spreads: Sequence[float] = ()


def how_evaluated(draws: Collection[bool]) -> str:
    """How teams act where they are evaluated, as the end of a sentence.

    Args:
        draws: For each of them, whether its policies draw their actions.

    Example:
        >>> how_evaluated([True, True]), how_evaluated([False])
        ('with drawn actions', 'without exploration')
    """
    ways = {True: "with drawn actions", False: "without exploration"}
    found = [ways[way] for way in sorted(set(draws))]
    return found[0] if len(found) == 1 else f"some {found[0]}, some {found[1]}"


class Verdict(TypedDict):
    """What became of one limit.

    Attributes:
        cost: What it is called.
        limit: b.
        mean: Mean cost of an episode; null: no whole episode ended, or one in a fault.
        low: Lower end of the 95 % interval of that mean, over episodes; null: too few of them, or costs of the agents' own.
        high: Its upper end.
        episodes: How many episodes were judged.
        kept: Whether the mean is at or below the limit; null: there is no mean.
        because: Causes, where it is not.
        text: All of it as a sentence without its full stop.
    """

    cost: str
    limit: float
    mean: float | None
    low: float | None
    high: float | None
    episodes: int
    kept: bool | None
    because: list[str]
    text: str


def judge(found: Evidence) -> Verdict:
    """Whether the limit was kept, and if not, why."""
    known = np.asarray(found.costs, np.float64)
    faulty = int((~np.isfinite(known)).sum())
    what = f"limit {found.limit:g} on {found.name}"
    if faulty or not len(known):
        why = f"{faulty} of {len(known)} episodes ended in a fault" if faulty else "no whole episode ended"
        text = f"{what}: {why}, so it cannot be judged"
        return Verdict(
            cost=found.name, limit=found.limit, mean=None, low=None, high=None, episodes=0, kept=None, because=[], text=text
        )  # fmt: skip
    low = high = None
    agent, mean = found.worst or (None, found.shared)
    if mean is None:
        mean = float(known.mean())
        low, high = _interval(known)
        interval = "" if low is None else f", 95 % interval {low:.3g} to {high:.3g}"
        kind = f" evaluated {found.evaluated}" if found.evaluated else ""
        whose = "" if agent is None else f" for agent {agent}, which pays most,"
        over = f"{len(known)} {'episode' if len(known) == 1 else 'episodes'}"
        measured = f"{mean:.3g} on average{whose} over {over}{kind}{interval}"
    elif agent is None:
        measured = f"{mean:.3g} on average"
    else:
        measured = f"{mean:.3g} on average for agent {agent}, which pays most"
    kept = mean <= found.limit
    because = [] if kept else _causes(found)
    doubt = ", but not surely" if (kept and high is not None and high > found.limit) else ""
    doubt = ", but not surely" if (not kept and low is not None and low <= found.limit) else doubt
    text = f"{what} {'kept' if kept else 'exceeded'}{doubt}: {measured}"
    if because:
        text += f"; {' and '.join(because)}"
    elif not kept and found.learns:
        text += "; no cause found, a longer run may keep it"
    return Verdict(
        cost=found.name,
        limit=found.limit,
        mean=mean,
        low=low,
        high=high,
        episodes=len(known),
        kept=kept,
        because=because,
        text=text,
    )


def _interval(costs: np.ndarray) -> tuple[float | None, float | None]:
    """Student's interval of the mean."""
    if len(costs) < 2:
        return None, None
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(costs) - 1) * costs.std(ddof=1) / math.sqrt(len(costs)))
    return float(costs.mean()) - reach, float(costs.mean()) + reach


def _causes(found: Evidence) -> list[str]:
    """Why it was exceeded, the plainest cause first."""
    if not found.heeds:
        return [f"{found.algorithm} minds no costs"]
    causes = []
    if found.idle is not None and found.idle > found.limit:
        causes.append(f"the limit is below what doing nothing costs ({found.idle:.3g})")
    before, last = _tenths(found.multipliers)
    if last >= AT_BOUND * found.mult_max:
        causes.append(f"the multiplier is at its bound ({found.mult_max:g})")
    elif last > RISEN * before:
        causes.append(f"the multiplier was still rising ({before:.2g} to {last:.2g})")
    narrow = _tenths(found.spreads)[1]
    if found.spreads and narrow < GONE * found.spreads[0]:
        causes.append(f"actions have hardly any spread left to learn by ({narrow:.2g} of {found.spreads[0]:.2g})")
    return causes


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    """Means over the tenth of the rounds before the last, and over the last; nan where there are none."""
    size = max(1, len(values) // 10)
    if len(values) < 2 * size:
        return math.nan, math.nan
    return float(np.mean(values[-2 * size : -size])), float(np.mean(values[-size:]))


def evidence(ready: Plan, results: Results, first: int, behind: int, idle: Sequence[float] | None) -> list[Evidence]:
    """What a run recorded about each of its limits.

    Args:
        ready: The run's plan.
        results: Its database.
        first: Place of the first episode that counts.
        behind: Place of the first episode behind those that count.
        idle: Mean cost of an idle episode, per cost; None: not measured.
    """
    algorithm, limits, n = ready.scenario.algorithm, ready.deployment.cost_limits, ready.deployment.n_agents
    at_end = results.costs_at_end(ready.scenario.n_rounds - 1)
    costs = at_end or results.costs()[first:behind]
    found = []
    for u, limit in enumerate(limits):
        charged = np.array([episode[u] for episode in costs])
        worst: tuple[int, float | None] | None = None
        shared: float | None = None
        if charged.ndim == 2:  # what each agent was charged with
            agent = int(charged.mean(axis=0).argmax())
            worst = None if (charged == charged[:, :1]).all() else (agent, None)  # in some worlds nothing is an agent's own
            charged = charged[:, agent]
        elif ready.spec.own_costs:
            own = {agent: mean for agent, mean in results.by_agent(f"episode_cost_{u}").items() if agent < n}
            if algorithm.shares_budget:
                shared = float(np.mean([*own.values()])) if own else None
            elif len(set(own.values())) > 1:
                worst = max(own.items(), key=lambda pair: pair[1])
        found.append(
            Evidence(
                name=("cost" if len(limits) == 1 else f"cost {u}") + (" (mean over agents)" if algorithm.shares_budget else ""),
                limit=limit,
                costs=charged.tolist(),
                evaluated=how_evaluated([ready.draws]) if at_end or not ready.deployment.learns else "",
                learns=ready.deployment.learns,
                worst=None if worst is None else (ready.deployment.called(worst[0]), worst[1]),
                shared=shared,
                heeds=algorithm.recipe.constraint != "none",
                algorithm=algorithm.name,
                idle=None if idle is None else idle[u],
                multipliers=results.by_round(f"multiplier_{u}"),
                mult_max=algorithm.mult_max,
                spreads=results.by_round("std"),
            )
        )
    return found
