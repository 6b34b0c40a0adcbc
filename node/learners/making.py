"""From a scenario to an agent's learner, sized to what the agent observes."""

from itertools import pairwise

import numpy as np

from node.learners.interface import AgentLearner
from node.learners.led import Executor
from node.learners.model_based.mdpo import ImaginingLearner
from node.learners.off_policy.learner import OffPolicyLearner
from node.learners.on_policy.learner import Learner
from node.numerics.critics import Shape
from node.protocol.routing import AgentRouting
from scenarios.schema import Scenario
from topology.deployment import Deployment


def make_learner(scenario: Scenario, deployment: Deployment, agent: int, routing: AgentRouting) -> AgentLearner:
    """The learner of one agent, of the kind that its recipe asks for."""
    recipe, shape = scenario.algorithm.recipe, shape_of(scenario, deployment, agent, routing)
    if recipe.is_led:
        return Executor(shape, scenario.algorithm)
    if recipe.target != "advantage":
        return OffPolicyLearner(shape, routing.observation.places[agent], scenario.algorithm)
    return make_on_policy_learner(scenario, deployment, agent, routing)


def make_on_policy_learner(scenario: Scenario, deployment: Deployment, agent: int, routing: AgentRouting) -> Learner:
    """The same for recipes that learn advantages, for callers that need an actor and critics."""
    make = Learner if scenario.algorithm.recipe.model == "none" else ImaginingLearner
    return make(shape_of(scenario, deployment, agent, routing), scenario.algorithm)


def shape_of(scenario: Scenario, deployment: Deployment, agent: int, routing: AgentRouting) -> Shape:
    """The sizes of an agent's learner."""
    width = {i: deployment.obs_dims[i] for i in range(deployment.n_agents)}
    own, counts = routing.observation.places[agent], deployment.n_discrete
    last = own.stop - 1 if deployment.presence else own.stop
    mask = slice(last - counts[agent], last) if deployment.masked and deployment.masked[agent] else None
    recipe = scenario.algorithm.recipe
    return Shape(
        agent=agent,
        seed=deployment.seed(scenario),
        steps=scenario.rollout.steps,
        copies=scenario.env.num_envs,
        rounds=scenario.n_rounds,
        extended=scenario.budget.extended,
        actor_columns=routing.observation.columns(routing.actor_agents),
        critic_columns=routing.observation.columns(routing.critic_agents),
        actor_width=sum(width[i] for i in routing.actor_agents),
        critic_width=sum(width[i] for i in routing.critic_agents),
        act_dim=deployment.act_dims[agent],
        n_discrete=deployment.n_discrete[agent],
        one_hot=_one_hot(deployment, routing),
        mask=mask,
        actor_mask=None if mask is None else _among(mask, routing),
        presence=last if deployment.presence else None,
        cost_limits=() if recipe.constraint == "none" else deployment.cost_limits,
        cut_copies=deployment.cut_copies,
        n_agents=deployment.n_agents,
        reach={"none": 1, "khop": len(routing.visible[agent]), "global": deployment.n_agents}[recipe.factor],
        degree=routing.degree,
    )


def _among(columns: slice, routing: AgentRouting) -> slice:
    """Where columns of the observation, which the actor takes, are among all that it takes."""
    taken = np.arange(routing.observation.width)[routing.observation.columns(routing.actor_agents)]
    start = int(np.flatnonzero(taken == columns.start)[0])
    return slice(start, start + columns.stop - columns.start)


def _one_hot(deployment: Deployment, routing: AgentRouting) -> tuple[slice, ...]:
    """The columns of every one-hot part of what an agent sees."""
    if not deployment.one_hot:
        return ()
    columns = []
    for origin, place in routing.observation.places.items():
        ends = np.cumsum((place.start, *deployment.one_hot[origin])).tolist()
        columns += [slice(start, stop) for start, stop in pairwise(ends)]
    return tuple(columns)
