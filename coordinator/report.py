"""The figures of a finished run: the object that `--json` prints and that `run.sqlite` keeps in `meta`."""

import hashlib
from pathlib import Path
from typing import TypedDict

from coordinator.desk import Outcome
from coordinator.plan import Plan
from coordinator.record import Results

TAIL = 10  # return_mean and cost_mean are over the last tenth of the steps


class Report(TypedDict):
    """Figures of one run.

    `return_mean` and `cost_mean` are means over the episodes that ended in the last tenth of the environment steps
    (over all episodes if none did; null if no episode ended at all). `payload_bytes`, `wire_bytes` and
    `bytes_per_agent_step` (wire bytes) are those of the peer and the central plane, and so is `delivered_frac`, the part
    of their messages that arrived (null if none were sent). `virtual_s` is the length of the run in modelled time,
    `mean_age_s` the mean age of the states of others that agents acted on (null if they see none).
    """

    run_dir: str
    scenario: str
    seed: int
    env_steps: int
    wall_s: float
    env_steps_per_s: float
    return_mean: float | None
    cost_mean: float | None
    cost_limit: float | None
    payload_bytes: int
    wire_bytes: int
    bytes_per_agent_step: float
    delivered_frac: float | None
    mean_age_s: float | None
    virtual_s: float
    node_pids: list[int]
    weights_sha256: str
    ledger_sha256: str


def report(ready: Plan, run_dir: Path, results: Results, outcome: Outcome) -> Report:
    """The figures of a run, complete or not."""
    steps = outcome.env_steps
    n_agents = ready.deployment.n_agents
    learnt = steps - steps // TAIL if ready.deployment.learns else 0
    tail = results.mean(learnt, steps) or results.mean(0, steps)
    payload, wire = results.peer_bytes()
    roles = [f"node-{agent}" for agent in range(n_agents)]
    limits = ready.deployment.cost_limits
    return Report(
        run_dir=str(run_dir),
        scenario=ready.scenario.name,
        seed=ready.scenario.seed,
        env_steps=steps,
        wall_s=outcome.wall_s,
        env_steps_per_s=steps / outcome.wall_s if outcome.wall_s else 0.0,
        return_mean=None if tail is None else tail[0],
        cost_mean=None if tail is None else tail[1],
        cost_limit=sum(limits) if limits else None,
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
