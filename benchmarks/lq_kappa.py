"""Does learning find what theory says κ is worth? `python benchmarks/lq_kappa.py`.

Trains `lq_line20` for κ = 0 and 1 and three seeds, evaluates each team without exploration over long episodes, and
prints its average cost per node and step as a multiple of the exact optimum, beside the exact best that any linear
policy restricted to κ hops can reach.
"""

import argparse
from pathlib import Path

import kappahop
from benchmarks.runs import made
from coordinator.records.plan import plan
from envs.networks.lq import dynamics, kappa_curve, optimal_cost
from scenarios.loading import load

KAPPAS = (0, 1)
SEEDS = (0, 1, 2)
EPISODES, LENGTH = 64, 1000  # 64 000 steps: the average cost of a policy is then known to about 0.5 %


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/lq_kappa"), help="folder of the runs (default %(default)s)")
    root = parser.parse_args().root
    scenario = load("lq_line20")
    graph = plan(scenario).deployment.graph()
    lq = scenario.env
    optimum, _ = optimal_cost(dynamics(graph, lq), lq.control_weight, lq.noise_std)
    exact = kappa_curve(graph, lq, KAPPAS)
    print(f"| κ | exact | {' | '.join(f'seed {seed}' for seed in SEEDS)} |")
    print("|---|---|" + "---|" * len(SEEDS))
    for kappa, bound in zip(KAPPAS, exact, strict=True):
        ratios = []
        for seed in SEEDS:
            folder = root / f"k{kappa}-s{seed}"
            run = made(["lq_line20", f"kappa={kappa}", "--seed", str(seed)], folder, in_process=True)
            judged = folder.with_name(f"{folder.name}-judged")
            if not (judged / "run.sqlite").exists():
                kappahop.evaluate(run, out=judged, episodes=EPISODES, in_process=True, env={"horizon": LENGTH})
            ratios.append(-kappahop.open_run(judged).metrics["return_mean"] / LENGTH / optimum)
        print(f"| {kappa} | {bound:.4f} | {' | '.join(f'{ratio:.4f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()
