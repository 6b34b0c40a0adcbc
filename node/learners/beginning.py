"""From what a run has kept of another one (`init_from`) to what a learner begins with.

An agent begins with the weights of the agent of its number. Blocks of inputs are told apart by the agent that they are of, never
by their place: the graph and κ of the other run say which blocks its networks took, and in which order.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from node.learners.interface import Origin
from node.numerics.inherited import Inherited, InputMap
from node.protocol.routing import needs_of
from node.protocol.scopes import ObservationScope
from node.protocol.turns import rounds_held
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.deployment import CENTRAL_WEIGHTS, CHECKPOINTS, SCENARIO_FILE, Deployment
from topology.snapshot import read_tensors


def origin_of(folder: Path, scenario: Scenario, deployment: Deployment, agent: int) -> Origin:
    """What an agent begins with.

    Args:
        folder: The other run's folder, or what is kept of it.
        scenario: Of the run that begins.
        deployment: Its sizes and graph.
        agent: Which agent.

    Raises:
        ValueError: the folder cannot be read.
    """
    theirs, before = load(str(folder / SCENARIO_FILE), resolve_worlds=False), Deployment.read(folder)
    tensors = load_weights(folder / CHECKPOINTS / "final", agent)
    now, then = needs_of(scenario, deployment), needs_of(theirs, before)
    actor = _common(now.actors[agent], deployment.obs_dims, then.actors[agent], before.obs_dims)
    critics = _common(now.critics[agent], deployment.obs_dims, then.critics[agent], before.obs_dims)
    samples = _samples(theirs, before, agent)
    return Origin(Inherited(tensors, actor, samples), Inherited(tensors, critics, samples))


def central_origin_of(folder: Path, deployment: Deployment) -> Inherited:
    """What the central node begins with; its inputs are all agents' blocks, the same in both runs.

    Raises:
        ValueError: the folder cannot be read.
    """
    theirs, before = load(str(folder / SCENARIO_FILE), resolve_worlds=False), Deployment.read(folder)
    inputs = InputMap.same(sum(deployment.obs_dims))
    return Inherited(_tensors(folder / CHECKPOINTS / "final" / CENTRAL_WEIGHTS), inputs, _samples(theirs, before, 0))


def load_weights(folder: Path, agent: int) -> dict[str, Tensor]:
    """An agent's stored tensors.

    Raises:
        ValueError: they cannot be read; the text names the file.
    """
    return _tensors(folder / f"agent-{agent}.safetensors")


def _tensors(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in read_tensors(path).items()}


def _common(agents: Sequence[int], dims: Sequence[int], other_agents: Sequence[int], other_dims: Sequence[int]) -> InputMap:
    """Which inputs networks of these agents' blocks have in common."""
    mine, other = ObservationScope.of(agents, dims), ObservationScope.of(other_agents, other_dims)
    both = [agent for agent in mine.agents if agent in other.places]

    def columns(scope: ObservationScope) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        return np.concatenate([np.arange(scope.places[agent].start, scope.places[agent].stop) for agent in both])

    return InputMap(columns(mine), columns(other), mine.width, other.width)


def _samples(scenario: Scenario, deployment: Deployment, agent: int) -> int:
    """How many samples of a run an agent learnt from, which is what its statistics of inputs stand for."""
    rounds = scenario.n_rounds
    if scenario.algorithm.recipe.order == "alternating":
        rounds = rounds_held(rounds, agent, deployment.n_agents, scenario.algorithm.turn_rounds)
    return rounds * scenario.rollout.steps * scenario.env.num_envs
