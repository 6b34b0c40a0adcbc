"""Processor time per picture of a film (`kappahop evaluate RUN --film`), software rendering included.

    python benchmarks/film.py [SECONDS]

Trains one round of quickstart, films so many seconds of it, and prints seconds of the processor per picture.
"""

import sys
import tempfile
import time
from pathlib import Path

from coordinator.records.database import Recorder
from coordinator.records.plan import make_run_dir, plan
from coordinator.report import film as filming
from coordinator.run import in_process
from scenarios.loading import load

WORDS = ["env.num_envs=1", "rollout.steps=100", "budget.env_steps=100", "record.tensorboard=false", "algorithm.minibatches=2"]


def main() -> None:
    """Train, film, tell."""
    filming.FILM_S = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    scenario = load("quickstart", WORDS)
    with tempfile.TemporaryDirectory() as folder:
        filming.check(scenario, path := Path(folder) / "film.gif")
        ready = plan(scenario)
        make_run_dir(run := Path(folder) / "run", ready)
        recorder = Recorder(run, env_steps_per_round=100)
        assert in_process.run(ready, run, recorder, lambda report: None).error is None
        recorder.close()
        judged = plan(scenario, weights=run / "checkpoints" / "final")
        began = time.process_time()
        filming.film(judged, path)
        spent, pictures = time.process_time() - began, filming.FILM_S * filming.PER_SECOND
        sys.stdout.write(f"{1000 * spent / pictures:.1f} ms of the processor per picture, {path.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
