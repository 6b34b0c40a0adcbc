"""How steady the world is that agents make for each other: `python benchmarks/visits.py`.

Trains independent agents on random stochastic games with and without a model, and prints how much the frequencies at which the
team visits the states vary from round to round. Frequencies are not counted: they are what the policies come to over an episode,
exactly.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.records.plan import plan
from envs.games.games import build
from envs.games.tabular import Array, Game, chain, expected_return, joint
from envs.registry import make
from node.learners.making import make_on_policy_learner
from node.learners.on_policy.learner import Learner
from node.numerics.policies import Categorical
from node.numerics.rollout import Rollout
from node.protocol.routing import AgentRouting
from scenarios.kinds import Kind
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.planes.world import END_TRUNCATED, Sense, pack_sense
from topology.wire.frame import FLOAT32, VERSION, WORLD, Header, Message

VARIANTS = {
    "IPPO": ["algorithm.name=ippo"],
    "MDPO, objective clip": ["algorithm.name=mdpo", "algorithm.objective=clip"],
    "the same without prediction": ["algorithm.name=mdpo", "algorithm.objective=clip", "algorithm.world_model.prediction=false"],
    "DPO": ["algorithm.name=dpo"],
    "MDPO": ["algorithm.name=mdpo"],
}
GAME = ["env.states=10", "env.n_discrete=3", "env.num_envs=20", "rollout.steps=30"]
MODEL = ["algorithm.world_model.hidden=[64,64]", "algorithm.world_model.passes=20", "algorithm.world_model.lr=1e-3"]
LEARNING = ["algorithm.actor_lr=2e-3", "algorithm.lr_decay=none"]


def sensed(obs: NDArray[np.float32], reward: NDArray[np.float32], final: NDArray[np.float32] | None) -> Sense:
    """What the world tells an agent of a step, after which all episodes go on or all are truncated."""
    copies = len(reward)
    end = np.full(copies, 0.0 if final is None else END_TRUNCATED, np.float32)
    rows = pack_sense(obs, reward, np.zeros((copies, 0), np.float32), end)
    header = Header(VERSION, int(Kind.SENSE), FLOAT32, WORLD, WORLD, 0, 0, 0, 0, 0.0)
    bodies = (rows.tobytes(), *(() if final is None else (final.tobytes(),)))
    return Sense(Message(header, bodies), copies=copies, obs_dim=obs.shape[1], n_costs=0)


def probabilities(learner: Learner, game: Game) -> Array:
    """A learner's policy as a table, (S, A)."""
    with torch.no_grad():
        policy = learner._actor(learner._actor_norm(torch.eye(game.n_states)))  # acting only ever tells samples of it
    assert isinstance(policy, Categorical)
    return np.asarray(policy.log_p.exp().numpy(), np.float64)


def trained(scenario: Scenario, game: Game) -> Iterator[tuple[Array, ...]]:
    """The policies at the start and after every round."""
    deployment = plan(scenario).deployment
    agents, steps, copies = range(deployment.n_agents), scenario.rollout.steps, scenario.env.num_envs
    learners = [make_on_policy_learner(scenario, deployment, i, AgentRouting(scenario, deployment, i)) for i in agents]
    rollouts = [Rollout.make(steps, copies, deployment.obs_dims[i], 1, 0) for i in agents]
    world = make(scenario.env, deployment.graph(), scenario.seed)
    obs = world.reset()
    yield tuple(probabilities(learner, game) for learner in learners)
    for round_ in range(scenario.n_rounds):
        for learner in learners:
            learner.begin_round(round_)
        for step in range(steps):
            for i in agents:
                rollouts[i].observation[step] = obs[i]
                rollouts[i].action[step] = learners[i].act(step, obs[i])
            told = world.step([rollout.action[step] for rollout in rollouts])
            obs = told.obs
            for i in agents:
                final = None if told.final_obs is None else told.final_obs[i]
                rollouts[i].record_outcome(step, sensed(obs[i], told.reward[i], final))
        for learner, rollout in zip(learners, rollouts, strict=True):
            rollout.cut_observation = rollout.own_cut_blocks()
            for learning in (learner.learn_values(round_, rollout, rollout.reward), learner.learn_policy(rollout, ())):
                for _ in learning:
                    pass
            learner.end_round(rollout)
            rollout.clear()
        yield tuple(probabilities(learner, game) for learner in learners)


def visits(game: Game, policies: tuple[Array, ...], steps: int) -> Array:
    """The part of an episode's steps that the team spends in each state, (S,)."""
    moves, here, total = chain(game, joint(policies)), game.start, np.zeros(game.n_states)
    for _ in range(steps):
        total, here = total + here, here @ moves
    return total / steps


def measured(words: list[str], rounds: int, seed: int) -> tuple[float, float, float, float]:
    """One training: how visits vary, as parts of 1/S, and the return of the last policies.

    Returns:
        Spread over all rounds, spread over the last third of them, change per round in the last third, return.
    """
    scenario = load("stochastic_game", [*GAME, *MODEL, *LEARNING, *words, f"env.seed={seed}", f"seed={seed}"])
    scenario = scenario.model_copy(update={"budget": scenario.budget.model_copy(update={"env_steps": rounds * 600})})
    game, steps = build(scenario.env), scenario.rollout.steps
    policies = list(trained(scenario, game))
    frequency = np.stack([visits(game, each, steps) for each in policies]) * game.n_states
    last = frequency[-(rounds // 3) :]
    spreads = [float(np.sqrt(each.var(axis=0).mean())) for each in (frequency, last)]
    change = float(np.sqrt((np.diff(last, axis=0) ** 2).mean()))
    return spreads[0], spreads[1], change, expected_return(game, policies[-1], steps)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="games, each played once (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=75, help="rounds of 600 steps (default %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| algorithm | spread over all rounds | over the last third | change per round, last third | last return |")
    print("|---|---|---|---|---|")
    for name, words in VARIANTS.items():
        runs = np.array([measured(words, given.rounds, seed) for seed in range(given.seeds)])
        cells = [
            f"{mean:.3f} ± {error:.3f}" for mean, error in zip(runs.mean(0), runs.std(0, ddof=1) / len(runs) ** 0.5, strict=True)
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
