"""What evaluations cost: `python benchmarks/evaluation.py`.

The same run, evaluated as it is by default and not at all. On and off take turns within one go, in changing
order, so that whatever else the machine does falls on both; each pair gives one ratio. CPU seconds are those of all its
processes, and the better figure where the machine is shared. The larger evaluations at the end are part of it. Weights and
ledger must be the same, or it ends with an error.
"""

import argparse
import tempfile
from pathlib import Path

import kappahop
from benchmarks.runs import Reading, reading, show, turns
from scenarios.loading import load

OFF = "evaluation.every_rounds=0"


def main() -> None:
    """Measure and print.

    Raises:
        SystemExit: evaluating changed what was learnt, or what was sent.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=["quickstart"], help="scenario and overrides (default: quickstart)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs (default %(default)s)")
    arguments = parser.parse_args()
    found: dict[bool, list[Reading]] = {True: [], False: []}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        for pair, on in turns(arguments.pairs):
            scenario, *words = arguments.words
            chosen, place = load(scenario, [*words, *(() if on else (OFF,))]), Path(folder) / f"{pair}-{on}"
            found[on].append(reading(lambda chosen=chosen, place=place: kappahop.run(chosen, out=place)))
            told = kappahop.open_run(place).metrics
            digests.add((told["weights_sha256"], told["ledger_sha256"]))
    if len(digests) > 1:
        raise SystemExit(f"runs differ in weights or ledger: {digests}")
    show(" ".join(arguments.words), found[True], found[False])


if __name__ == "__main__":
    main()
