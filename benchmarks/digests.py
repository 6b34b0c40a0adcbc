"""Digests of weights and ledger over a fixed list of small runs: whether a change of the code changes any byte.

    python benchmarks/digests.py > before.txt      (the code before)
    python benchmarks/digests.py | diff before.txt -

Every recipe, on ideal and on lossy links, plus the variants that take another path through the runtime. Digests depend on
the processor type and on versions, so both halves must be made on one machine.

All runs are in this process, unless processes are asked for; the lines are the same:

    python benchmarks/digests.py --agents-per-process 3 | diff before.txt -
"""

import argparse
import sys
import tempfile
from pathlib import Path

from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import in_process, supervisor
from coordinator.run.metrics import report
from scenarios.loading import load
from scenarios.recipes import RECIPES

SMALL = [
    "env.num_envs=3", "rollout.steps=14", "budget.env_steps=126", "algorithm.hidden=[8]", "algorithm.minibatches=2",
    "algorithm.epochs=2", "record.tensorboard=false", "env.horizon=10",
]  # fmt: skip
LINE = ["env.name=network_lq", "env.agents=4", "topology.kind=line", "kappa=1"]
GAME = ["env.name=stochastic_game", "env.agents=3", "topology.kind=line", "kappa=1"]
LOSSY = ["network.loss_prob=0.2", "network.latency_ms=300", "network.jitter_ms=200", "network.patience_s=0.5"]
VARIANTS = {
    "direct": ["routing=direct", "kappa=2"],
    "central": ["algorithm.name=mappo", "algorithm.critic_scope=central"],
    "shared": [
        "algorithm.name=mappo",
        "algorithm.critic_scope=central",
        "algorithm.share_policy=true",
        "algorithm.input_norm=none",
    ],
    "rewards": ["algorithm.reward=khop_mean", "kappa=2"],
    "event-triggered": ["network.state_threshold=0.5"],
    "half": ["network.codec.state=float16", "network.codec.ratio=int8", "algorithm.name=happo"],
    "down": ["network.churn.mean_on_s=9", "network.churn.mean_off_s=3"],
    "robots": ["env.name=safe_halfcheetah", "env.partition=3x2", "env.horizon=10"],
    "limits": ["env.control_limit=0.2", "env.horizon=20", "algorithm.name=mappo_l"],  # staggered starts
    "many": ["env.agents=20", "topology.kind=ring", "routing=direct"],
    "planes": ["env.control_limit=0.2", "env.horizon=20", "algorithm.name=macpo"],
}


def digests(words: list[str], size: int | None) -> tuple[str, str]:
    """Digests of the weights and of the ledger of one run.

    Args:
        words: Its settings.
        size: How many agents share a process; None: all processes are this one.

    Raises:
        SystemExit: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        packs = [] if size is None else [f"supervision.agents_per_process={size}"]
        ready = plan(load("quickstart", [*words, *packs]))
        make_run_dir(place, ready)
        recorder = Recorder(place, env_steps_per_round=ready.scenario.env.num_envs * ready.scenario.rollout.steps, sinks=[])
        run = in_process.run if size is None else supervisor.run
        outcome = run(ready, place, recorder, lambda *_: None)
        recorder.commit()
        results = Results(place)
        found = report(ready, place, results, outcome)
        results.close()
        recorder.close()
        if outcome.error:
            raise SystemExit(f"{' '.join(words)}: {outcome.error}")
    return found["weights_sha256"], found["ledger_sha256"]


def main() -> None:
    """Print a line for each run of the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only runs whose name holds this")
    parser.add_argument("--agents-per-process", type=int, help="packs of so many agents; without it, all are in this process")
    asked = parser.parse_args()
    runs = {
        f"{name} {links}": [*(GAME if recipe.is_led else LINE), *SMALL, f"algorithm.name={name}", *more]
        for name, recipe in RECIPES.items()
        for links, more in (("ideal", []), ("lossy", LOSSY))
    }
    runs |= {
        f"{name} {links}": [*LINE, *SMALL, *words, *more]
        for name, words in VARIANTS.items()
        for links, more in (("ideal", []), ("lossy", LOSSY))
    }
    for name, words in runs.items():
        if asked.only in name:
            print(name, *(digest[:16] for digest in digests(words, asked.agents_per_process)))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
