"""Stored weights: which of a team are whole, and whether a run can begin with those of another run (`init_from`).

Theory of operation. A run begins with the final weights of another one. `check_origin` refuses what cannot be carried over,
before anything starts, in one sentence that names both runs. Networks may take other blocks of inputs (another κ, graph or
scope); all else of them is the same. `keep_origin` copies what is needed into `RUN/initial/`, laid out as the folder of a run,
and processes read it there. So the run does not depend on the other one afterwards.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from node.protocol.routing import needs_of
from scenarios.loading import ScenarioError, load
from scenarios.schema import Scenario
from topology.deployment import CENTRAL_WEIGHTS, CHECKPOINTS, DEPLOYMENT_FILE, INITIAL, SCENARIO_FILE, Deployment
from topology.snapshot import read_tensors

FINAL = "final"  # folder of the last weights
_NETWORKS = ("hidden", "activation", "layer_norm", "input_norm", "std", "value_norm")  # settings that give weights their meaning


def without_weights(folder: Path, n_agents: int) -> list[int]:
    """Agents whose weights a checkpoint folder lacks."""
    return [i for i in range(n_agents) if not (folder / _file_of(i)).is_file()]


def with_weights_not_finite(folder: Path, n_agents: int) -> list[int]:
    """Agents of whose stored weights some are NaN or infinite; files that cannot be read are refused when they are loaded."""
    found = []
    for agent in range(n_agents):
        with contextlib.suppress(ValueError, TypeError):
            if not all(np.isfinite(tensor).all() for tensor in read_tensors(folder / _file_of(agent)).values()):
                found.append(agent)
    return found


def kept_origin(source: str, asked: Scenario) -> Path | None:
    """What the run of a scenario file has kept of the one that it began with; None: nothing, or another is asked for."""
    path = Path(source)
    kept = path.parent / INITIAL
    if path.name != SCENARIO_FILE or not (kept / DEPLOYMENT_FILE).is_file():
        return None
    return kept if load(source, resolve_worlds=False).init_from == asked.init_from else None


def check_origin(folder: Path, scenario: Scenario, deployment: Deployment) -> None:
    """Make sure that a run can begin with the weights of another one.

    Args:
        folder: The other run's folder.
        scenario: Of the run that begins.
        deployment: Its sizes and graph.

    Raises:
        ScenarioError: the other run is not finished, or its weights do not fit; the text names both sides.
    """
    if not (folder / SCENARIO_FILE).is_file():
        raise ScenarioError(f"init_from: got {folder}; expected the folder of a finished run, with its {SCENARIO_FILE}")
    theirs, before = load(str(folder / SCENARIO_FILE), resolve_worlds="if known"), Deployment.read(folder)
    for what, had, has in _differences(theirs, before, scenario, deployment):
        raise ScenarioError(f"init_from: got {folder}, a run with {what} {_told(had)}; expected {_told(has)}, as this run has")
    weights = folder / CHECKPOINTS / FINAL
    if missing := without_weights(weights, before.n_agents):
        raise ScenarioError(f"init_from: got {folder}; expected a finished run, and {weights} lacks weights of agents {missing}")
    if before.critic is not None and not (weights / CENTRAL_WEIGHTS).is_file():
        raise ScenarioError(f"init_from: got {folder}; expected a finished run, and {weights} lacks {CENTRAL_WEIGHTS}")
    if diverged := with_weights_not_finite(weights, before.n_agents):
        raise ScenarioError(f"init_from: got {folder}; weights of its agents {diverged} are not finite, so it has diverged")


def keep_origin(folder: Path, run_dir: Path) -> str:
    """Copy what a run begins with into its own folder.

    Args:
        folder: The other run's folder.
        run_dir: The folder of the run that begins.

    Returns:
        The SHA-256 of the weights: of all their files, agent by agent.

    Raises:
        ScenarioError: the other run's folder cannot be read.
        OSError: the copy cannot be written.
    """
    kept, digest = run_dir / INITIAL, hashlib.sha256()
    (kept / CHECKPOINTS / FINAL).mkdir(parents=True)
    deployment = Deployment.read(folder)
    weights = [Path(CHECKPOINTS, FINAL, _file_of(agent)) for agent in range(deployment.n_agents)]
    if deployment.critic is not None:
        weights.append(Path(CHECKPOINTS, FINAL, CENTRAL_WEIGHTS))
    for path in (Path(SCENARIO_FILE), Path(DEPLOYMENT_FILE), *weights):
        try:
            content = (folder / path).read_bytes()
        except OSError as error:
            raise ScenarioError(f"init_from: {folder / path} cannot be read ({error.strerror})") from None
        (kept / path).write_bytes(content)
        if path in weights:
            digest.update(content)
    return digest.hexdigest()


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(list(value)) if isinstance(value, tuple | list) else str(value)


def _file_of(agent: int) -> str:
    return f"agent-{agent}.safetensors"


def _differences(theirs: Scenario, before: Deployment, mine: Scenario, now: Deployment) -> Iterator[tuple[str, Any, Any]]:
    """In what another run differs so that its weights mean nothing here: what it is, there, and here."""
    yield from _unequal(
        ("env.name", theirs.env.name, mine.env.name),
        ("a number of agents of", before.n_agents, now.n_agents),
    )
    for what, *values in (
        ("observations of a width of", before.obs_dims, now.obs_dims),
        ("actions of a width of", before.act_dims, now.act_dims),
        ("a number of choices of", before.n_discrete, now.n_discrete),
        ("action masks:", before.masked or (False,) * before.n_agents, now.masked or (False,) * now.n_agents),
    ):
        for agent, (had, has) in enumerate(zip(*values, strict=True)):
            yield from _unequal((f"agent {agent} with {what}", had, has))
    old, new = theirs.algorithm, mine.algorithm
    yield from _unequal(
        ("presence in observations (env.presence):", before.presence, now.presence),
        ("algorithm.target", old.recipe.target, new.recipe.target),
        ("a central critic (algorithm.critic_scope):", before.critic is not None, now.critic is not None),
        *((f"algorithm.{key}", getattr(old, key), getattr(new, key)) for key in _NETWORKS),
    )
    if new.recipe.target == "advantage":
        yield from _unequal(
            ("a number of cost critics (algorithm.constraint) of", _n_costs(theirs, before), _n_costs(mine, now)),
        )
        for what, had, has in (  # means of networks that began apart are worth nothing
            ("one policy for all (algorithm.share_policy):", old.share_policy, new.share_policy),
            ("critics in consensus (algorithm.consensus):", old.recipe.averages_critic, new.recipe.averages_critic),
            ("policies in consensus (algorithm.consensus):", old.recipe.averages_policy, new.recipe.averages_policy),
        ):
            if has and not had:
                yield what, had, has
    else:
        keys = ("representation", "action_bound")
        yield from _unequal(
            *((f"algorithm.off_policy.{key}", getattr(old.off_policy, key), getattr(new.off_policy, key)) for key in keys)
        )
    if (whole := _takes_inputs_whole(mine)) is not None:
        others, ours = needs_of(theirs, before), needs_of(mine, now)
        for agent in range(now.n_agents):
            what = f"{whole} where agent {agent} takes the states of agents"
            yield from _unequal((what, others.both[agent], ours.both[agent]))


def _unequal(*rows: tuple[str, Any, Any]) -> Iterator[tuple[str, Any, Any]]:
    return (row for row in rows if row[1] != row[2])


def _n_costs(scenario: Scenario, deployment: Deployment) -> int:
    return 0 if scenario.algorithm.recipe.constraint == "none" else len(deployment.cost_limits)


def _takes_inputs_whole(scenario: Scenario) -> str | None:
    """Which setting makes the meaning of one input depend on all others; None: none does."""
    algorithm = scenario.algorithm
    if algorithm.input_norm == "layer":
        return "algorithm.input_norm layer"
    if algorithm.recipe.target == "advantage":
        return None
    if algorithm.off_policy.representation == "table":
        return "algorithm.off_policy.representation table"
    return "algorithm.target ideal_q" if algorithm.recipe.target == "ideal_q" else None
