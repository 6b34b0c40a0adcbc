"""What can be known about the finite games without learning: `python benchmarks/games.py`.

Prints for each shipped game the best return from its start, that of uniform play, and where best responses settle when agents
take turns: the mean over random starts as a part of the optimum, and how often they end in it; then how fast the chain's
advantages forget far agents.
"""

import argparse

import numpy as np

from envs.games.games import advantage_spreads, build, chain_policies, truncation_chain
from envs.games.tabular import Game, constant, nash_gap, optimum, performance, respond, uniform
from scenarios.loading import load

SCENARIOS = ("matrix_climbing", "sharing_game", "stage_game", "stochastic_game", "truncation_chain")
AGENTS, COUPLING, SEED = 5, 0.15, 2  # the chain whose spreads docs/reference/worlds.md tables


def settled(game: Game, gamma: float, rng: np.random.Generator) -> tuple[float, float]:
    """Return and Nash gap where turns end from a random deterministic start."""
    start = constant(game, [rng.integers(count, size=game.n_states) for count in game.n_discrete])
    *_, last = respond(game, start, gamma, turns="alternating")
    return performance(game, last, gamma), nash_gap(game, last, gamma)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20, help="random starts per game (default %(default)s)")
    starts = parser.parse_args().starts
    print("| game | gamma | best | uniform | turns settle at, of best | in the optimum | greatest Nash gap |")
    print("|---|---|---|---|---|---|---|")
    for name in SCENARIOS:
        scenario = load(name)
        game, gamma = build(scenario.env), scenario.algorithm.gamma
        best = float(game.start @ optimum(game, gamma)[0])
        ends, gaps = zip(*(settled(game, gamma, np.random.default_rng(seed)) for seed in range(starts)), strict=True)
        reached = np.mean(np.isclose(ends, best))
        print(
            f"| {name} | {gamma:g} | {best:.4g} | {performance(game, uniform(game), gamma):.4g} | {np.mean(ends) / best:.3f} "
            f"| {reached:.0%} | {max(gaps):.1g} |"
        )
    print("\n| chain, agent 0 | " + " | ".join(f"κ = {kappa}" for kappa in range(AGENTS)) + " |")
    print("|---|" + "---|" * AGENTS)
    chain = truncation_chain(AGENTS, COUPLING, SEED)
    spreads = advantage_spreads(chain, chain_policies(AGENTS, SEED), 0, 0.9)
    print("| spread of its advantage | " + " | ".join(f"{spread:.5f}" for spread in spreads) + " |")


if __name__ == "__main__":
    main()
