"""The metrics of a finished run: the object that `--json` prints and that `run.sqlite` keeps in `meta`."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from coordinator.records.database import Results
from coordinator.records.plan import Plan
from coordinator.run.collector import Divergence, Outcome
from coordinator.run.idle import Idle
from coordinator.run.verdict import Verdict, evidence, judge
from scenarios.loading import ScenarioError
from topology.graph.mixing import spectral_gap

TAIL = 10  # return_mean and cost_mean are over the last tenth of the steps

Array = NDArray[np.float64]
Places = NDArray[np.int64]


class Evaluated(TypedDict):
    """What evaluations of a run came to; null, and 0 episodes, without any; null if a fault ended one.

    `eval_measures` are means of the world's own metrics over the same episodes as `eval_return_mean`, by name.
    `eval_drawn` says whether policies drew their actions in them, as in training, or took their mean or likeliest ones.
    `eval_return_mean` and `eval_cost_mean` are means over the episodes of the last policies (while the run goes on: of the last
    ones evaluated), `best_return_mean` and `best_cost_mean` those of the best policies, which are the ones after `best_round`,
    over as many episodes: the "absolute metric" (`coordinator.evaluation.evaluations`).
    """

    eval_return_mean: float | None
    eval_cost_mean: float | None
    eval_episodes: int
    eval_drawn: bool | None
    eval_measures: dict[str, float | None]
    best_return_mean: float | None
    best_cost_mean: float | None
    best_round: int | None


class Report(Evaluated):
    """Metrics of one run.

    All but those that begin with `eval_` and `best_` are of the training, exploration included.

    `return_mean` and `cost_mean` are means over the episodes that ended last, as `latest` has it (null if no episode ended at
    all), so they are also where the curves of `kappahop report` end. `progress_mean` is the same of returns less the alive bonus
    that the world pays per step (null where it pays none). An episode that a fault of the simulation ended has no
    return; `faulty_episodes` is how many there were in the whole run. `diverged` is empty in a run whose numbers stayed
    finite; else it says whose did not (an agent's, the central critic's, or the simulation's in one of the last episodes), at
    which env step, and which; there is then no `return_mean` and no `cost_mean`. `payload_bytes`, `wire_bytes` and
    `bytes_per_agent_step` (wire bytes) are those of the peer and the central plane, and so is `delivered_frac`, the part of
    their messages that arrived (null if none were sent). `virtual_s` is the length of the run in modelled time, `mean_age_s`
    the mean age of the states of others that agents acted on (null if they see none). `limits` says of each limit on a cost
    whether it was kept, and if not, why; `idle_costs` is what an episode costs, cost by cost, in which agents do nothing, and
    `idle_return` what it returns (null: not measured). `spectral_gap` is that of the matrix by which neighbours average their
    networks (null where they average none).
    """

    run_dir: str
    scenario: str
    seed: int
    env_steps: int
    wall_s: float
    env_steps_per_s: float
    return_mean: float | None
    progress_mean: float | None
    cost_mean: float | None
    cost_limit: float | None
    limits: list[Verdict]
    idle_costs: list[float] | None
    idle_return: float | None
    spectral_gap: float | None
    faulty_episodes: int
    diverged: list[Divergence]
    payload_bytes: int
    wire_bytes: int
    bytes_per_agent_step: float
    delivered_frac: float | None
    mean_age_s: float | None
    virtual_s: float
    node_pids: list[int]
    weights_sha256: str
    ledger_sha256: str


def report(ready: Plan, run_dir: Path, results: Results, outcome: Outcome, *, idle: Idle | None = None) -> Report:
    """The metrics of a run, complete or not; `idle` as `coordinator.run.idle` has measured it."""
    idle_costs = idle.costs if idle is not None and ready.spec.n_costs else None
    steps = outcome.env_steps
    n_agents = ready.deployment.n_agents
    returns, costs, lengths = (
        np.array(results.episodes(name), dtype=np.float64).reshape(-1, 2) for name in ("return", "cost", "length")
    )
    (first,), (behind,) = latest(returns[:, 0], np.array([float(steps)]), learns=ready.deployment.learns)
    ended = slice(first, behind)
    diverged = list(outcome.diverged)
    if (faulty := np.flatnonzero(np.isnan(returns[ended, 1]))).size:
        text = f"{len(faulty)} of the last {behind - first} episodes ended in a fault"
        diverged.append(Divergence(who="the simulation", agent=None, env_step=int(returns[first + faulty[0], 0]), text=text))
    payload, wire = results.peer_bytes()
    recipe = ready.scenario.algorithm.recipe
    roles = [f"node-{agent}" for agent in range(n_agents)]
    limits = ready.deployment.cost_limits
    return_mean = None if diverged else _mean(returns[ended, 1])
    told = evaluated(ready, results, outcome.best_round)
    if not ready.deployment.learns:  # all its episodes are an evaluation
        told["eval_return_mean"], told["eval_cost_mean"] = (_mean(values[ended, 1]) for values in (returns, costs))
        told["eval_episodes"], told["eval_drawn"] = int(behind - first), ready.deployment.samples
        told["eval_measures"] = results.measures(evaluated=False)
    return Report(
        run_dir=str(run_dir),
        scenario=ready.scenario.name,
        seed=ready.scenario.seed,
        env_steps=steps,
        wall_s=outcome.wall_s,
        env_steps_per_s=steps / outcome.wall_s if outcome.wall_s else 0.0,
        return_mean=return_mean,
        progress_mean=None if return_mean is None else ready.deployment.progress(return_mean, float(lengths[ended, 1].mean())),
        cost_mean=None if diverged else _mean(costs[ended, 1]),
        cost_limit=sum(limits) if limits else None,
        limits=[] if diverged else _judged(ready, results, steps, idle_costs),
        idle_costs=idle_costs,
        idle_return=None if idle is None else idle.ret,
        spectral_gap=None if recipe.consensus == "none" else spectral_gap(ready.deployment.graph()),
        **told,
        faulty_episodes=int(np.isnan(returns[:, 1]).sum()),
        diverged=diverged,
        payload_bytes=payload,
        wire_bytes=wire,
        bytes_per_agent_step=wire / (n_agents * steps) if steps else 0.0,
        delivered_frac=results.delivered_frac(outcome.gone),
        mean_age_s=results.mean_age_s(),
        virtual_s=results.virtual_s(),
        node_pids=[outcome.pids[role] for role in roles if role in outcome.pids],
        weights_sha256=hashlib.sha256("".join(outcome.weights.get(role, "") for role in roles).encode()).hexdigest(),
        ledger_sha256=results.ledger_sha256(),
    )


def made_up(ready: Plan, results: Results, metrics: Mapping[str, Any], best_round: int | None) -> dict[str, Any]:
    """Of a run's metrics those that are others once evaluations that were missing have been made."""
    limits = _judged(ready, results, metrics["env_steps"], metrics.get("idle_costs"))
    return {**evaluated(ready, results, best_round), "limits": limits}


def _judged(ready: Plan, results: Results, steps: int, idle_costs: Sequence[float] | None) -> list[Verdict]:
    ends = np.array([end for end, _ in results.episodes("cost")], dtype=np.float64)
    (first,), (behind,) = latest(ends, np.array([float(steps)]), learns=ready.deployment.learns)
    return [judge(found) for found in evidence(ready, results, int(first), int(behind), idle_costs)]


def evaluated(ready: Plan, results: Results, best_round: int | None) -> Evaluated:
    """What a run's evaluations came to.

    Args:
        ready: The run's plan.
        results: The run's database.
        best_round: After which round the policies were best; None: not known.
    """
    found = {key: np.array(episodes) for key, episodes in results.evaluations().items()}
    none = np.zeros((0, 2))
    last = found[max(found)] if found else none
    best = none if best_round is None else found.get((best_round, True), none)
    return Evaluated(
        eval_return_mean=_mean(last[:, 0]),
        eval_cost_mean=_mean(last[:, 1]),
        eval_episodes=len(last),
        eval_drawn=ready.draws if len(last) else None,
        eval_measures=results.measures(evaluated=True),
        best_return_mean=_mean(best[:, 0]),
        best_cost_mean=_mean(best[:, 1]),
        best_round=best_round if len(best) else None,
    )


def report_of(metrics: Mapping[str, Any]) -> Report:
    """The metrics of a finished run as it has kept them; null where its version of kappahop knew none of this name."""
    return cast("Report", {name: metrics.get(name) for name in Report.__annotations__})


def kept(metrics: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The metrics that a run has kept, checked; {} while it goes on.

    Args:
        metrics: By name; those of another version may lack some.
        source: Where they come from.

    Raises:
        ScenarioError: one is not what `Report` says of it.
    """
    for name, kind in get_type_hints(Report).items():
        if name in metrics:
            try:
                _check(kind, metrics[name])
            except (ValidationError, LookupError) as error:
                told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"it lacks {error}"
                raise ScenarioError(f"{source}: cannot be read (meta: {name}: {told})") from None
    return dict(metrics)


def _check(kind: Any, value: Any) -> None:
    """Raise pydantic's error, or a `KeyError`, if a value is not of a kind; lists may be of typed dicts."""
    (item,) = get_args(kind) if get_origin(kind) is list else (None,)
    if not is_typeddict(item):
        TypeAdapter(kind).validate_python(value, strict=True)
        return
    for entry in TypeAdapter(list[dict[str, Any]]).validate_python(value, strict=True):
        for name, below in get_type_hints(item).items():
            _check(below, entry[name])


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) and not np.isnan(values).any() else None


def latest(ends: Array, by: Array, *, learns: bool) -> tuple[Places, Places]:
    """Which episodes tell what a team is worth by some step: those that ended in the last tenth of the steps until then.

    If none did, those of the tenth up to the end of the last episode before. A team that does not learn is the same all
    along, so all its episodes until then count.

    Args:
        ends: Environment steps at which episodes ended, ascending.
        by: Environment steps asked about.
        learns: Whether the team learns.

    Returns:
        For each step asked about the place of the first of these episodes, and of the first one behind them: equal where no
        episode had ended.

    Example:
        >>> ends = np.array([50.0, 58.0, 60.0, 99.0])
        >>> [places.tolist() for places in latest(ends, np.array([10.0, 80.0, 100.0]), learns=True)]
        [[0, 1, 3], [0, 3, 4]]
    """
    behind = np.searchsorted(ends, by, side="right")
    if not learns or not len(ends):
        return np.zeros_like(behind), behind
    last = ends[np.maximum(behind - 1, 0)]
    ended_late = last > by - by // TAIL
    first = np.searchsorted(ends, np.where(ended_late, by - by // TAIL, last - np.maximum(last // TAIL, 1)), side="right")
    return np.minimum(first, behind), behind
