"""The on-policy family side by side: `python benchmarks/family.py`.

Trains every model-free on-policy row of the recipe table on one scenario, one whole `kappahop run` after the other; rows whose
critic sees all agents run with the central critic, where they allow it, and with `--both` without it too. Everything
else is as the scenario has it, and alike for all, but for `--settings FILE`: YAML with settings per algorithm, such as
`mappo_l: [algorithm.clip=0.1]`, found with equally many tries for each. Rows that take turns make 1/n of the updates per agent at
equal samples; `--equal-updates` gives them n times the steps. The first row is a team that does nothing.
`--out` keeps the runs and, rewritten after each, the table as
Markdown and as JSON; what is finished there is not run again, so an interrupted comparison goes on when it is called
again. Bytes are wire bytes. Rates are only comparable where the machine did nothing else.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

import kappahop
from benchmarks.idle import idle
from benchmarks.runs import made
from coordinator.records.database import Results
from coordinator.records.plan import plan
from scenarios.loading import load
from scenarios.recipes import RECIPES

HEADINGS = ("algorithm", "critic", "return", "progress", "cost", "limit", "peer B", "central B", "env-steps/s", "command")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        algorithm: Its name in the recipe table.
        words: What it adds to the scenario.
    """

    algorithm: str
    words: tuple[str, ...]

    @property
    def critic(self) -> str:
        """Whose critic it learns with."""
        return "central" if "algorithm.critic_scope=central" in self.words else "own"


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one run.

    Attributes:
        command: What to type for it.
        algorithm: Its name.
        critic: "own" or "central".
        seed: Of the run.
        return_mean: Of the episodes that ended in the last tenth of the steps; None if none ever did.
        progress_mean: The same less the alive bonus; None where the world pays none.
        cost_mean: Of the same episodes.
        cost_limit: What it is held against; None where the world has no costs.
        peer_bytes: Per agent and environment step, on the links between agents.
        central_bytes: The same, to and from the central critic.
        env_steps_per_s: Rate of the whole run, its start included.
    """

    command: str
    algorithm: str
    critic: str
    seed: int
    return_mean: float | None
    progress_mean: float | None
    cost_mean: float | None
    cost_limit: float | None
    peer_bytes: float
    central_bytes: float
    env_steps_per_s: float


def family(
    *, both: bool = False, settings: Mapping[str, Sequence[str]] | None = None, turn_steps: int | None = None
) -> list[Row]:
    """All model-free on-policy rows, with the central critic where it makes sense.

    Args:
        both: Also those without it.
        settings: Further words by algorithm.
        turn_steps: Steps of those that take turns, if they have steps of their own.

    Raises:
        ValueError: settings are given for an algorithm that is no such row.
    """
    rows = []
    for name, recipe in RECIPES.items():
        if recipe.target != "advantage" or recipe.model != "none":
            continue
        words = (f"algorithm.name={name}", *(("kappa=1",) if "khop" in (recipe.actor_scope, recipe.critic_scope) else ()))
        words += tuple((settings or {}).get(name, ()))
        if turn_steps is not None and recipe.order == "alternating":
            words += (f"budget.env_steps={turn_steps}",)
        may = recipe.critic_scope == "global" and replace(recipe, critic_scope="central").conflict() is None
        if both or not may:
            rows.append(Row(name, words))
        if may:
            rows.append(Row(name, (*words, "algorithm.critic_scope=central")))
    if strangers := (settings or {}).keys() - {row.algorithm for row in rows}:
        raise ValueError(f"--settings: got {', '.join(sorted(strangers))}; no such row")
    return rows


def doing_nothing(common: Sequence[str], seed: int) -> Figures:
    """The row of a team that gives the zero action."""
    still = idle(common[0], common[1:], seed)
    return Figures(
        command=" ".join(("python", "benchmarks/idle.py", common[0])),
        algorithm="does nothing",
        critic="–",
        seed=seed,
        return_mean=still.ret,
        progress_mean=still.progress,
        cost_mean=still.cost,
        cost_limit=still.cost_limit,
        peer_bytes=0.0,
        central_bytes=0.0,
        env_steps_per_s=0.0,
    )


def make(row: Row, common: Sequence[str], seed: int, out: Path) -> Figures | None:
    """The figures of a run, made now or before; None if it failed."""
    words = [*common, *row.words, "--seed", str(seed)]
    command = " ".join(("kappahop", "run", *words))
    folder = out / f"{row.algorithm}-{row.critic}-s{seed}-{hashlib.sha256(command.encode()).hexdigest()[:8]}"
    finished = folder.with_suffix(".json")
    if finished.exists():
        print("there already:", command, file=sys.stderr, flush=True)
        return Figures(**json.loads(finished.read_text()))
    try:
        printed = made(words, folder).metrics
    except (kappahop.RunFailedError, kappahop.ScenarioError) as error:
        print(f"{error}: {command}", file=sys.stderr, flush=True)
        return None
    results = Results(folder)
    wire = {"peer": 0, "central": 0, "world": 0}
    for part in results.by_kind():
        wire[part.plane] += part.wire_bytes
    results.close()
    agent_steps = plan(load(words[0], words[1:-2])).spec.n_agents * printed["env_steps"]
    figures = Figures(
        command=command,
        algorithm=row.algorithm,
        critic=row.critic,
        seed=seed,
        peer_bytes=wire["peer"] / agent_steps,
        central_bytes=wire["central"] / agent_steps,
        **{name: printed[name] for name in ("return_mean", "progress_mean", "cost_mean", "cost_limit", "env_steps_per_s")},
    )
    finished.write_text(json.dumps(asdict(figures)))
    return figures


def table(found: Sequence[Figures]) -> str:
    """Markdown: a line per algorithm and critic, its seeds side by side."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    groups: dict[tuple[str, str], list[Figures]] = {}
    for figures in found:
        groups.setdefault((figures.algorithm, figures.critic), []).append(figures)

    def told(runs: Sequence[Figures], value: Callable[[Figures], float | None], form: str) -> str:
        return ", ".join("–" if (number := value(run)) is None else format(number, form) for run in runs)

    for (algorithm, critic), runs in groups.items():
        cells = (
            algorithm, critic,
            told(runs, lambda run: run.return_mean, ".0f"),
            told(runs, lambda run: run.progress_mean, ".0f"),
            told(runs, lambda run: run.cost_mean, ".1f"),
            told(runs[:1], lambda run: run.cost_limit, "g"),
            told(runs[:1], lambda run: run.peer_bytes, ".1f"),
            told(runs[:1], lambda run: run.central_bytes, ".1f"),
            told(runs, lambda run: run.env_steps_per_s, ",.0f"),
            f"`{runs[0].command}`",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table after every run, print it at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="safe_ant_4x2", help="what is learnt (default %(default)s)")
    parser.add_argument("--env-steps", type=int, default=500_000, help="of each run (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run each (default 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/family"), help="folder of runs and table (default %(default)s)")
    parser.add_argument("--both", action="store_true", help="critics that see all agents also as the agents' own")
    parser.add_argument("--settings", type=Path, help="YAML with further key=value words by algorithm")
    parser.add_argument("--equal-updates", action="store_true", help="rows that take turns get as many updates per agent")
    parser.add_argument("overrides", nargs="*", help="key=value, the same for all")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    common = [given.scenario, f"budget.env_steps={given.env_steps}", *given.overrides]
    settings = {} if given.settings is None else yaml.safe_load(given.settings.read_text(encoding="utf-8"))
    n_agents = plan(load(common[0], common[1:])).spec.n_agents
    turn_steps = n_agents * given.env_steps if given.equal_updates else None
    jobs = [(row, seed) for row in family(both=given.both, settings=settings, turn_steps=turn_steps) for seed in given.seeds]
    found = [doing_nothing(common, given.seeds[0])]
    for place, (row, seed) in enumerate(jobs, start=1):
        print(f"[{place}/{len(jobs)}] ", end="", file=sys.stderr)
        figures = make(row, common, seed, given.out)
        if figures is not None:
            found.append(figures)
            (given.out / "table.md").write_text(table(found) + "\n", encoding="utf-8")
            (given.out / "table.json").write_text(json.dumps([asdict(each) for each in found], indent=1), encoding="utf-8")
    print(table(found))
    if missing := len(jobs) + 1 - len(found):
        sys.exit(f"family: {missing} of {len(jobs)} runs failed; call again to try them once more")


if __name__ == "__main__":
    main()
