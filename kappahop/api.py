"""The Python API: the same functions as the command's, for programs and notebooks.

Theory of operation. The work is done by a thread of its own (`_conduct`), which runs a `coordinator.session.Session`, with
processes or without. So it does not matter whether the caller has a running event loop, and an interrupt (Ctrl-C, a notebook's
stop button) meets the calling thread while it waits, never the run in the midst of something: the run is asked to stop, ends its
processes, and what was recorded is kept. What the caller wants to see, `on_round` and the progress bar, is called in the calling
thread. Nothing here prints unless it is asked to, installs a signal handler, or ends the program.

If the calling process is killed, the fork server finds its input closed and ends the run's processes (decision 0015).
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coordinator import session
from coordinator.evaluation.baselines import Played, keep, play
from coordinator.evaluation.evaluations import Evaluated
from coordinator.records.database import RecordingError
from coordinator.records.plan import Plan, plan, plan_of, register_as
from coordinator.session import Ended, RunFailedError, Session, Spectator
from coordinator.study import runs as stored
from coordinator.study.columns import Columns, expanded
from coordinator.study.comparison import Comparison
from coordinator.study.comparison import compare as _compare
from coordinator.study.export import tables
from coordinator.study.sweep import one_run
from envs.interface import VecEnv
from envs.registry import make
from node.learners.beginning import load_weights
from node.learners.policy import Policy
from node.numerics import products
from scenarios.loading import ScenarioError, check, dotted_keys, load
from scenarios.registry import allowing_code
from scenarios.schema import Scenario
from topology.deployment import SCENARIO_FILE
from topology.planes.control import Control, Gone, Progress, RoundReport
from topology.process import SLICE_S, StopFlag

if TYPE_CHECKING:
    from envs.adapters.pettingzoo_out import Parallel

T = TypeVar("T")
Array = NDArray[Any]
Source = str | Path | Scenario
Place = "str | Path | Run | Sweep"

log = logging.getLogger("kappahop")
log.addHandler(logging.NullHandler())  # else Python would print warnings on standard error


# --------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Round:
    """What is known when a round has ended.

    Attributes:
        round: Its number, from 0.
        env_step: Environment steps by its end, over all copies.
        virtual_s: Seconds of the modelled deployment by its end, of the agent that was last.
        returns: Returns of the episodes that were reported since the round before, shape (episodes,).
        costs: Their costs, the sum over costs, shape (episodes,).
        metrics: Metrics of learning by name, means over the agents that reported them.
        agents: The same of each agent; a central critic is the number behind the last.
        wire_bytes: Bytes that agents sent each other, and to a central critic, in the round.
    """

    round: int
    env_step: int
    virtual_s: float
    returns: NDArray[np.float64]
    costs: NDArray[np.float64]
    metrics: dict[str, float]
    agents: dict[int, dict[str, float]]
    wire_bytes: int


OnRound = Callable[[Round], bool | None]


class Run:
    """A run's folder: what it came to, as numpy arrays, and its policies. `open_run` opens one.

    A run that still goes on, or that was interrupted, has what was recorded so far.

    Args:
        folder: Where it is.

    Attributes:
        folder: Where it is.
        scenario: What was run, with every setting.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenario = load(str(folder / SCENARIO_FILE), resolve_worlds="if known")

    def __repr__(self) -> str:
        """Its folder."""
        return f"<kappahop.Run {self.folder}>"

    @property
    def metrics(self) -> dict[str, Any]:
        """What `kappahop run --json` prints of it; {} while it goes on."""
        return self._stored.metrics

    @property
    def is_complete(self) -> bool:
        """Whether it has done all its steps, and its numbers have stayed finite."""
        return self._stored.is_complete

    @property
    def n_agents(self) -> int:
        """How many agents it has."""
        return self._stored.deployment.n_agents

    def returns(self) -> NDArray[np.float64]:
        """The return of every episode of the training, in order of their end; nan where a fault ended one."""
        return self.episodes()["return"]

    def curves(self) -> Columns:
        """What was known after each round, one row per round.

        Columns: env_step, wire_bytes (between agents, so far), virtual_s, wall_s; return, cost and length, means over the
        training episodes that ended last; eval_return and eval_cost, those of the last evaluation.
        """
        with stored.reading(self.folder):
            run = self._stored
            course, judged = run.curve, run.evaluated_curve
        same = {name: getattr(course, name) for name in ("env_step", "wire_bytes", "virtual_s", "wall_s")}
        ends = {"return": course.ret, "cost": course.cost, "length": course.length}
        return Columns(same | ends | {"eval_return": judged.ret, "eval_cost": judged.cost})

    def rounds(self) -> Columns:
        """Metrics of learning, one row per round and agent.

        Columns: round, agent, env_step, wall_s, virtual_s, and the metrics: value_loss, kl, entropy, …
        """
        found = self._table("rounds")
        return expanded(found, "more", [json.loads(text) for text in found["more"]])

    def episodes(self) -> Columns:
        """Episodes of the training in order of their end.

        Columns: round, env_step, copy, return, cost (the sum over costs), length, cost_0, …
        """
        return self._with_costs("episodes")

    def evaluations(self) -> Columns:
        """Episodes of the evaluations.

        Columns: round (after which the policies were stored), env_step, copy, return, cost, length, at_end (one of the larger
        evaluations when the training was over), cost_0, …
        """
        return self._with_costs("evaluations")

    def traffic(self, kind: str | None = None, plane: str | None = None) -> Columns:
        """The ledger, one row per round, directed link and kind of message.

        Columns: round, plane, src, dst, kind, messages, payload_bytes, wire_bytes, delivered, dropped and its reasons, in_flight.

        Args:
            kind: STATE, RATIO, …; None: all.
            plane: peer, central or world; None: all.

        Raises:
            ScenarioError: the run sent nothing of this kind or on this plane.
        """
        found = self._table("traffic")
        for name, wanted in (("kind", kind), ("plane", plane)):
            if wanted is not None:
                there = sorted(set(found[name].tolist()))
                if wanted not in there:
                    raise ScenarioError(f"{name}: got {wanted!r}; the run has {', '.join(there) or 'sent nothing'}")
                found = found.rows(found[name] == wanted)
        return found

    def ages(self) -> Columns:
        """How old the states of others were that agents acted on: round, agent, origin, used, missing, mean_s, max_s."""
        return self._table("ages")

    def events(self) -> Columns:
        """What happened: wall_s, role, text, virtual_s, round."""
        return self._table("events")

    def violations(self) -> Columns:
        """Of every episode of the training whether it cost more than its limit: env_step, cost, limit, exceeds.

        `limit` is nan, and nothing exceeds it, where the world's costs have no limit.
        """
        episodes, limits = self.episodes(), self._stored.deployment.cost_limits
        limit = sum(limits) if limits else np.nan
        cost = episodes["cost"]
        return Columns({
            "env_step": episodes["env_step"],
            "cost": cost,
            "limit": np.full(len(cost), limit),
            "exceeds": cost > limit,
        })

    def policy(self, agent: int, checkpoint: str = "final") -> Policy:
        """An agent's stored policy, which acts on arrays.

        Args:
            agent: Which agent.
            checkpoint: `final`, `best` (by its evaluations), or `round-N`.

        Raises:
            ScenarioError: there is no such agent or checkpoint, or the weights do not fit.
        """
        if not 0 <= agent < self.n_agents:
            raise ScenarioError(f"agent: got {agent}; expected 0 to {self.n_agents - 1}")
        with _refusals(), stored.reading(self.folder):
            weights = session.weights_of(self.folder, checkpoint)
            found = Policy(self.scenario, self._stored.deployment, agent, load_weights(weights, agent))
        if not found.is_exact:
            log.warning("torch had computed before kappahop was imported: actions may differ in their last bits from the run's")
        return found

    @property
    def _stored(self) -> stored.Run:
        return stored.Run(self.folder, self.scenario)  # a new one: it remembers, and the run may go on

    def _table(self, name: stored.TableName) -> Columns:
        with stored.reading(self.folder):
            return Columns(self._stored.table(name))

    def _with_costs(self, name: stored.TableName) -> Columns:
        found = self._table(name)
        return expanded(found, "costs", [_charged(json.loads(text)) for text in found["costs"]])


class Sweep:
    """A sweep's folder with its runs.

    Args:
        folder: Where it is.

    Attributes:
        folder: Where it is.
        runs: Its runs, those of one cell together, by ascending seed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with stored.reading(folder):
            self._cells = stored.cells(stored.find([folder]))
        self.runs = [Run(run.folder) for cell in self._cells for run in cell.runs]

    def __repr__(self) -> str:
        """Its folder."""
        return f"<kappahop.Sweep {self.folder}, {len(self.runs)} runs>"

    def table(self) -> Columns:
        """One row per run: its folder, cell, seed and varied settings, and what it came to."""
        found = tables(self._cells)["runs"]
        return Columns({name: np.array(found[name].to_pylist()) for name in found.column_names})

    def compare(self, *, threshold: float | None = None, held: int = 1, training: bool = False) -> Comparison:
        """Its cells side by side; see `compare`."""
        return compare(self, threshold=threshold, held=held, training=training)

    def report(self, out: str | Path | None = None, *, training: bool = False) -> Path:
        """Write its report; see `report`."""
        return report(self, out=out, training=training)


# ------------------------------------------------------------------- functions


def run(
    scenario: Source,
    *,
    out: str | Path | None = None,
    in_process: bool = False,
    progress: bool = False,
    on_round: OnRound | None = None,
    allow_code: bool = True,
    **settings: Any,
) -> Run:
    """Train the agents of a scenario, one process each; returns when the run has ended.

    Args:
        scenario: A shipped name, the path of a YAML file, or what `load_scenario` gives.
        out: The run's folder; new or empty. None: `runs/SCENARIO-sSEED-TIME`.
        in_process: Whether all agents run in this process, one after the other: the same result, for debugging.
        progress: Whether to show a progress bar, and warnings, on standard error.
        on_round: Called after each round, in the calling thread. The run stops if it returns False. With processes the run goes
            on meanwhile; in one process it waits.
        allow_code: Whether the scenario may name code by import path (`env={"name": "mypackage.worlds:WORLD"}`), which is
            imported then. False for scenarios that you do not trust.
        settings: Settings to override: `kappa=1`, `network={"preset": "uav-mesh"}`, `**{"algorithm.clip": 0.1}`.
            `init_from=run` begins with what another run has learnt.

    Returns:
        The run, which is not complete if `on_round` has stopped it.

    Raises:
        ScenarioError: a setting is wrong, or the run cannot start here.
        RunFailedError: a process failed, or numbers are no longer finite.
        KeyboardInterrupt: it was interrupted; it has stopped, what was recorded is kept, and `resume` goes on.

    Example:
        >>> import tempfile
        >>> chain = dict(env={"name": "network_lq", "agents": 3}, budget={"env_steps": 400}, algorithm={"hidden": [8]})
        >>> place = tempfile.mkdtemp()
        >>> done = run("quickstart", out=place, in_process=True, rollout={"steps": 20}, kappa=1, **chain)
        >>> done.is_complete, done.curves()["env_step"][-1]
        (True, np.float64(400.0))
        >>> policy = done.policy(agent=1)
        >>> policy.agents, policy(np.zeros((5, policy.width))).shape
        ((0, 1, 2), (5, 1))
    """
    with _refusals(allow_code=allow_code):
        source, chosen = _chosen(scenario, settings)
        ready = plan(chosen) if source is None else plan_of(source, chosen)
        place = session.new_folders(chosen) if out is None else Path(out)
    return _carried_out(ready, place, in_process=in_process, progress=progress, on_round=on_round)


def resume(
    run: "Run | str | Path",
    *,
    in_process: bool = False,
    progress: bool = False,
    on_round: OnRound | None = None,
    allow_code: bool = True,
    **settings: Any,
) -> Run:
    """Go on with a run that was interrupted or failed, from the last state that it stored (`record.state_rounds`).

    It ends with the same weights and the same ledger as if it had never stopped. A finished run gets the evaluations that it
    lacks, if any. With a larger budget, `budget={"env_steps": 1_000_000}`, a finished run goes on too: step sizes that fall
    linearly go on falling from the value of that state, to 0 at the new end.

    Args:
        run: The run, or its folder.
        in_process: As `run`.
        progress: As `run`.
        on_round: As `run`.
        allow_code: As `run`; names that the run's program had registered are known again too.
        settings: A larger budget, or another `supervision={"agents_per_process": N}`; the run keeps all other settings.

    Returns:
        The run.

    Raises:
        ScenarioError: there is nothing to go on with, or a setting other than the budget differs.
        RunFailedError: as `run`.
        KeyboardInterrupt: as `run`.
    """
    folder = _folder(run)
    with _refusals(allow_code=allow_code):
        one_run(folder)
        if allow_code:
            register_as(folder)
        found = session.resumption(folder, _words(settings))
    notes = [f"{text}; the state before it is taken" for text in found.skipped]
    if found.changed:
        notes.append(f"not as the run was begun ({', '.join(found.changed)}): it may not end as it would have")
    if found.plan is not None:
        return _carried_out(found.plan, folder, in_process=in_process, progress=progress, on_round=on_round, notes=notes)
    if found.lacks_evaluations:
        _check_products()
        stop = StopFlag()

        def work(aside: "_Aside") -> None:
            try:
                with _refusals():
                    session.make_missing_evaluations(folder, Spectator(), stop)
            except RecordingError as error:
                raise RunFailedError(str(error), folder) from None

        _conduct(work, stop)
    return Run(folder)


@overload
def evaluate(
    run: "Run | str | Path",
    *,
    checkpoint: str = "final",
    episodes: int = 20,
    out: str | Path | None = None,
    film: str | Path | None = None,
    in_process: bool = False,
    progress: bool = False,
    allow_code: bool = True,
    policy: None = None,
    **settings: Any,
) -> Run: ...


@overload
def evaluate(run: "Run | Source", *, episodes: int = 20, allow_code: bool = True, policy: str, **settings: Any) -> Played: ...


def evaluate(
    run: "Run | Source",
    *,
    checkpoint: str = "final",
    episodes: int = 20,
    out: str | Path | None = None,
    film: str | Path | None = None,
    in_process: bool = False,
    progress: bool = False,
    allow_code: bool = True,
    policy: str | None = None,
    **settings: Any,
) -> "Run | Played":
    """Let a trained team play without learning, or a baseline of the world.

    Args:
        run: The run, or its folder; with `policy` a scenario too, as `run` takes it.
        checkpoint: Which weights: `final`, `best` (by its evaluations), or `round-N`.
        episodes: At least so many.
        out: The evaluation's folder. None: `RUN/evaluation-1`, -2, …
        film: Film of the world and its traffic to make, .gif or .mp4.
        in_process: As `run`.
        progress: As `run`.
        allow_code: As `resume`.
        policy: Name of a baseline of the world to play instead of the team. It plays `episodes` episodes at once, in this
            process, sends nothing, and takes no `checkpoint`, `out`, `film` or `in_process`. None: the team plays.
        settings: Other settings of world and links, as `run`; the policies stay as they are.

    Returns:
        The evaluation, a run that learns nothing: its `returns`, `traffic` and `metrics` are what the team came to. Of a
        baseline what it came to; it is kept beside the run too, if `run` is one, and reports draw it as a line.

    Raises:
        ScenarioError: there are no such weights, or the team does not fit the settings; or there is no such policy.
        RunFailedError: as `run`.
        KeyboardInterrupt: as `run`.

    Example:
        >>> evaluate("voltage_33", policy="none", episodes=2, env={"horizon": 4}).episodes
        2
    """
    if policy is not None:
        unused = {"checkpoint": checkpoint != "final", "out": out, "film": film, "in_process": in_process, "progress": progress}
        if given := [name for name, is_given in unused.items() if is_given]:
            raise ScenarioError(f"{given[0]}: means nothing with policy, which needs no weights, processes or folder")
        return _played(run, policy, episodes, settings, allow_code=allow_code)
    if isinstance(run, Scenario):
        raise ScenarioError("run: got a scenario; expected a run or its folder, or the name of a baseline as policy")
    folder = _folder(run)
    with _refusals(allow_code=allow_code):
        one_run(folder)
        session.weights_of(folder, checkpoint)
        if allow_code:
            register_as(folder)
        asked = load(str(folder / SCENARIO_FILE), _words(settings))
        if film is not None:
            from coordinator.report.film import check as check_film

            _check_products()
            check_film(asked, Path(film))
        ready = session.evaluation(folder, asked, checkpoint=checkpoint, episodes=episodes)
        if film is not None:
            from coordinator.report.film import try_out

            try_out(ready)
    place = session.evaluation_folders(folder) if out is None else Path(out)
    found = _carried_out(ready, place, in_process=in_process, progress=progress)
    if film is not None:
        from coordinator.report.film import film as make_film

        with _refusals():
            make_film(ready, Path(film))
    return found


def sweep(
    scenario: str | Path,
    grid: Mapping[str, Iterable[Any]],
    *,
    seeds: Iterable[int] = range(3),
    jobs: int | None = None,
    out: str | Path | None = None,
    in_process: bool = False,
    progress: bool = False,
    allow_code: bool = True,
    **settings: Any,
) -> Sweep:
    """Run every combination of some settings' values, several seeds each.

    The same call again goes on where it was stopped: runs that are done are kept.

    Args:
        scenario: A shipped name, or the path of a YAML file.
        grid: Values by setting: `{"kappa": [0, 1, 2], "topology.kind": ["line", "ring"]}`.
        seeds: Seeds of every cell.
        jobs: Runs at a time. None: what the cores carry.
        out: The sweep's folder; an old one is gone on with. None: `runs/SCENARIO-sweep`.
        in_process: Whether each run has all its agents in one process.
        progress: Whether to show how far it is, on standard error.
        allow_code: As `run`.
        settings: Settings that are the same in all runs, as `run`.

    Returns:
        The sweep.

    Raises:
        ScenarioError: a cell cannot be run.
        RunFailedError: some runs failed; the others are done.
        KeyboardInterrupt: it was interrupted; runs under way have stopped, and the same call goes on.
    """
    from coordinator.cli.terminal import terminal, warning
    from coordinator.report.tables import SweepProgress
    from coordinator.study import grid as cells
    from coordinator.study import sweep as sweeping

    stop, source = StopFlag(), str(scenario)
    values = {key: list(found) for key, found in grid.items()} | {key: [value] for key, value in _overrides(settings)}
    words = [f"{key}={','.join(map(_word, found))}" for key, found in values.items()]
    with _refusals(allow_code=allow_code):
        numbers = cells.seeds(",".join(str(int(seed)) for seed in seeds))
        points = cells.cells(source, words, numbers, in_process=in_process)
        at_once = jobs or sweeping.jobs_at_once(points, in_process=in_process)
        sweeping.check_at_once(points, at_once, in_process=in_process)
        place = Path("runs") / f"{points[0].scenario.name}-sweep" if out is None else Path(out)
        with stored.reading(place):
            planned = sweeping.plan_sweep(source, points, numbers, place, in_process=in_process)
        console = terminal(stderr=True)
        for doubt in dict.fromkeys(text for point in points for text in point.doubts):
            console.print(warning(doubt), highlight=False, soft_wrap=True) if progress else log.warning(doubt)
        same = ["sweep", source, *words, "--seeds", ",".join(map(str, numbers)), "--out", str(place)]
        with SweepProgress(console, planned, quiet=not progress) as display:

            def work(aside: "_Aside") -> None:
                with sweeping.open_sweep(planned, same) as lock:
                    sweeping.run(planned, lock, at_once=at_once, watch=lambda now: aside(lambda: display.watch(now)), stop=stop)

            _conduct(work, stop)
    if failed := [job for job in planned.jobs if job.state == "failed"]:
        told = f"{len(failed)} of {len(planned.jobs)} runs failed, first {failed[0].folder}: {failed[0].error}"
        raise RunFailedError(told, place)
    return Sweep(place)


def open_run(folder: str | Path) -> Run:
    """A run that was made before, or that still goes on.

    Args:
        folder: Its folder.

    Returns:
        The run.

    Raises:
        ScenarioError: there is no run.
    """
    path = Path(folder)
    with _refusals():
        one_run(path)
        with stored.reading(path):
            if all(run.folder != path for run in stored.find([path])):
                raise ScenarioError(f"{path}: a folder of runs, not a run; give one of them")
            return Run(path)


def compare(
    *places: "str | Path | Run | Sweep", threshold: float | None = None, held: int = 1, training: bool = False
) -> Comparison:
    """Compare complete runs, cell by cell: return with its interval over seeds, cost, bytes, and which κ to take.

    Args:
        places: Runs, sweeps, or folders with such.
        threshold: Return of an episode; the comparison then tells when it was reached.
        held: Rounds in a row for which it must hold.
        training: Whether to judge by the episodes of the training, exploration included, not by evaluations.

    Returns:
        The comparison: `rows`, one per cell; `answers`, which κ to take; `as_json()`, everything as plain data.

    Raises:
        ScenarioError: there is no complete run.
    """
    folders = [_folder(place) for place in places]
    with _refusals(), stored.reading(*folders):
        return _compare(folders, threshold=threshold, held=held, training=training)


def report(*places: "str | Path | Run | Sweep", out: str | Path | None = None, training: bool = False) -> Path:
    """Write one HTML file with the curves, what bytes buy, the links' traffic, every table, and how to repeat it.

    Args:
        places: Runs, sweeps, or folders with such.
        out: The file; an old one is replaced. None: `report.html` in the first folder.
        training: As `compare`.

    Returns:
        The file.

    Raises:
        ScenarioError: there is no run, or the file cannot be written.
    """
    from coordinator.cli.study import REPORT_FILE
    from coordinator.report.page import write

    folders = [_folder(place) for place in places]
    path = folders[0] / REPORT_FILE if out is None else Path(out)
    with _refusals(), stored.reading(*folders):
        write(folders, path, training=training)
    return path


def load_scenario(scenario: Source, *, allow_code: bool = True, **settings: Any) -> Scenario:
    """A checked scenario, with every setting.

    Args:
        scenario: A shipped name, the path of a YAML file, or another scenario.
        allow_code: As `run`.
        settings: Settings to override, as `run`.

    Returns:
        The scenario, which cannot be changed; call this again with it to override more.

    Raises:
        ScenarioError: a setting is wrong; the text names it, what it got and what is expected.

    Example:
        >>> small = load_scenario("quickstart", kappa=0, network={"preset": "wifi-busy"})
        >>> small.kappa, small.network.preset, load_scenario(small, kappa=2).network.preset
        (0, 'wifi-busy', 'wifi-busy')
        >>> load_scenario("quickstart", kapa=0)
        Traceback (most recent call last):
        ...
        scenarios.loading.ScenarioError: kapa: unknown key, did you mean 'kappa'?
    """
    with _refusals(allow_code=allow_code):
        return _chosen(scenario, settings)[1]


def make_env(scenario: Source, num_envs: int | None = None, *, allow_code: bool = True, **settings: Any) -> VecEnv:
    """A scenario's world, in this process: identical copies that step at once.

    Args:
        scenario: As `run`.
        num_envs: How many copies; None: as the scenario says.
        allow_code: As `run`.
        settings: As `run`.

    Returns:
        The world (`envs.interface.VecEnv`); call `reset` first and `close` at last.

    Raises:
        ScenarioError: a setting is wrong.

    Example:
        >>> env = make_env("quickstart", num_envs=2, env={"name": "network_lq", "agents": 3})
        >>> first = env.reset()
        >>> step = env.step([np.zeros((2, 1), np.float32)] * 3)
        >>> len(first), step.reward.shape
        (3, (3, 2))
        >>> env.close()
    """
    if num_envs is not None:
        settings["env.num_envs"] = num_envs
    with _refusals(allow_code=allow_code):
        source, chosen = _chosen(scenario, settings)
        ready = plan(chosen) if source is None else plan_of(source, chosen)
        return make(ready.scenario.env, ready.deployment.graph(), ready.deployment.seed(ready.scenario))


def to_pettingzoo(scenario: Source, *, allow_code: bool = True, **settings: Any) -> "Parallel":
    """A scenario's world as a PettingZoo `ParallelEnv`, one copy; needs the extra `pettingzoo`.

    Args:
        scenario: As `run`.
        allow_code: As `run`.
        settings: As `run`. `seed` is what the world is made from until `reset` is given another.

    Returns:
        The environment, an `envs.adapters.pettingzoo_out.Parallel`. Costs are in `infos[agent]["cost"]`, their limits in the
        attribute `cost_limits`, and the agents' graph in the attribute `graph`.

    Raises:
        ScenarioError: a setting is wrong, or PettingZoo is not installed.

    Example:
        >>> env = to_pettingzoo("quickstart", env={"name": "network_lq", "agents": 3})
        >>> obs, infos = env.reset(seed=1)
        >>> obs, rewards, terminations, truncations, infos = env.step({a: env.action_space(a).sample() for a in env.agents})
        >>> env.agents, obs["agent_0"].shape
        (['agent_0', 'agent_1', 'agent_2'], (1,))
        >>> env.close()
    """
    settings["env.num_envs"] = 1
    with _refusals(allow_code=allow_code):
        try:
            from envs.adapters.pettingzoo_out import Parallel
        except ModuleNotFoundError as error:
            raise ScenarioError(
                f"to_pettingzoo: {error.name} is not installed; install the extra: kappahop[pettingzoo]"
            ) from None
        source, chosen = _chosen(scenario, settings)
        ready = plan(chosen) if source is None else plan_of(source, chosen)
        env, graph = ready.scenario.env, ready.deployment.graph()
        return Parallel(lambda seed: make(env, graph, seed), ready.deployment.seed(ready.scenario), env.name)


# ---------------------------------------------------------------------- pieces


@runtime_checkable
class _Aside(Protocol):
    """Has something done in the calling thread, soon, or with `wait` before it returns."""

    def __call__(self, what: Callable[[], None], *, wait: bool = False) -> None: ...


def _conduct(work: Callable[[_Aside], T], stop: StopFlag) -> T:
    """Do work in a thread of its own, and meanwhile in the calling thread what it wants to have done there.

    Whatever ends the wait in the calling thread (an interrupt, an error of a callback) asks the work to stop, and is raised when
    the work has stopped.
    """
    orders: SimpleQueue[tuple[Callable[[], None], Event] | None] = SimpleQueue()
    given: list[T] = []
    failed: list[BaseException] = []

    def aside(what: Callable[[], None], *, wait: bool = False) -> None:
        done = Event()
        orders.put((what, done))
        while wait and not (done.wait(SLICE_S) or stop.asked):
            pass

    def perform() -> None:
        try:
            given.append(work(aside))
        except BaseException as error:  # noqa: BLE001  (it is raised in the calling thread)
            failed.append(error)
        finally:
            orders.put(None)

    thread = Thread(target=perform, name="kappahop")
    broken: BaseException | None = None
    try:
        thread.start()
        while True:
            try:
                if (order := orders.get()) is None:
                    break
                what, done = order
                if broken is None:
                    what()
                done.set()
            except BaseException as error:  # noqa: BLE001  (it is raised when the work has stopped)
                broken = broken or error
                word = "interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped by {type(error).__name__}"
                stop.ask(word)
    finally:
        if thread.is_alive():
            if not stop.asked and broken is None and not (given or failed):
                stop.ask()  # an interrupt has met the lines above
            thread.join()
    if broken is not None:
        raise broken
    if failed:
        raise failed[0]
    return given[0]


def _carried_out(
    ready: Plan,
    place: Path | Iterator[Path],
    *,
    in_process: bool,
    progress: bool,
    on_round: OnRound | None = None,
    notes: Iterable[str] = (),
) -> Run:
    from coordinator.cli.progress import Display
    from coordinator.cli.terminal import terminal, warning

    if in_process:
        _check_products()
    stop, console, folders = StopFlag(), terminal(stderr=True), list[Path]()

    def warn(texts: Iterable[str]) -> None:
        for text in texts:
            console.print(warning(text), highlight=False, soft_wrap=True) if progress else log.warning(text)

    steps = ready.scenario.n_rounds * ready.scenario.rollout.steps * ready.scenario.env.num_envs
    with ExitStack() as stack:
        display = stack.enter_context(Display(console, total_steps=steps, quiet=False)) if progress else None
        rounds = None if on_round is None else _Rounds(ready, lambda one: _judge(on_round(one), stop))

        def work(aside: _Aside) -> Ended:
            def tell(report: Control) -> None:
                if display is not None:
                    aside(lambda: display.watch(report))
                for ended in () if rounds is None else rounds.take(report):
                    aside(ended, wait=in_process)

            def evaluated(evaluated: Evaluated) -> None:
                if display is not None:
                    aside(lambda: display.watch_evaluations(evaluated))

            with _refusals():
                opened = Session(ready, place, in_process=in_process)
            folders.append(opened.folder)
            aside(lambda: warn([*notes, *opened.doubts]))
            with opened:
                try:
                    return opened.run(Spectator(tell, evaluated), stop)
                except Exception as error:
                    raise RunFailedError(f"{type(error).__name__}: {error}", opened.folder) from error

        try:
            ended = _conduct(work, stop)
        except KeyboardInterrupt as error:
            if folders:
                error.add_note(f"the run has stopped; what was recorded is in {folders[0]}, and kappahop.resume goes on")
            raise
    if ended.error is not None and not ended.interrupted:
        raise RunFailedError(ended.error, ended.folder if ended.folder.exists() else None)
    return Run(ended.folder)


def _judge(verdict: bool | None, stop: StopFlag) -> None:
    if isinstance(verdict, bool | np.bool_) and not verdict:
        stop.ask("stopped by on_round")


class _Rounds:
    """Puts together what the processes report of a round: it is over when every node that is not gone has reported it.

    Reports of different nodes may overtake each other, so those of the next round may come before the last ones of this.
    """

    def __init__(self, ready: Plan, tell: Callable[[Round], None]) -> None:
        after = ready.deployment.resumed_after
        self._nodes = set(range(ready.deployment.n_nodes))
        self._per_round = ready.scenario.env.num_envs * ready.scenario.rollout.steps
        self._tell = tell
        self._round = 0 if after is None else after + 1
        self._reports: dict[int, dict[int, RoundReport]] = {}
        self._episodes: list[tuple[float, float]] = []

    def take(self, report: Control) -> Iterator[Callable[[], None]]:
        """Take a report in; what is to be called of the rounds that are then over."""
        if isinstance(report, Progress):
            self._episodes += [(episode.ret, sum(episode.cost)) for episode in report.episodes]
        elif isinstance(report, Gone):
            self._nodes.discard(report.agent)
        elif isinstance(report, RoundReport):
            self._reports.setdefault(report.round, {})[report.agent] = report
        while (here := self._reports.get(self._round)) and self._nodes <= here.keys():
            yield self._ended(self._reports.pop(self._round))

    def _ended(self, reports: dict[int, RoundReport]) -> Callable[[], None]:
        reports = {agent: reports[agent] for agent in sorted(reports)}
        names = dict.fromkeys(name for one in reports.values() for name in one.metrics)
        returns, costs = np.array(self._episodes, np.float64).reshape(-1, 2).T
        ended = Round(
            round=self._round,
            env_step=(self._round + 1) * self._per_round,
            virtual_s=max(one.virtual_s for one in reports.values()),
            returns=returns,
            costs=costs,
            metrics={
                name: float(np.mean([one.metrics[name] for one in reports.values() if name in one.metrics])) for name in names
            },
            agents={agent: dict(one.metrics) for agent, one in reports.items()},
            wire_bytes=sum(row.wire_bytes for one in reports.values() for row in one.traffic if row.plane != "world"),
        )
        self._round, self._episodes = self._round + 1, []
        return lambda: self._tell(ended)


def _charged(costs: list[float | list[float | None] | None]) -> dict[str, float | None]:
    """Costs of an episode by name: `cost_0` of the team, or `cost_0_agent_2` where agents are charged with costs of their own."""
    found: dict[str, float | None] = {}
    for u, cost in enumerate(costs):
        if isinstance(cost, list):
            found |= {f"cost_{u}_agent_{i}": own for i, own in enumerate(cost)}
        else:
            found[f"cost_{u}"] = cost
    return found


def _check_products() -> None:
    try:
        products.check()
    except ValueError as error:
        raise ScenarioError(f"in_process: {error}") from None


@contextmanager
def _refusals(*, allow_code: bool = False) -> Iterator[None]:
    """One class of error for all that is wrong input, in words of Python where its text has those of the command line.

    Raises:
        ScenarioError: instead of any ValueError.
    """
    try:
        with allowing_code(allow=allow_code):
            yield
    except ValueError as error:
        told = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda option: option[1].replace("-", "_"), str(error))
        raise ScenarioError(told) from error


def _folder(place: "str | Path | Run | Sweep") -> Path:
    return place.folder if isinstance(place, Run | Sweep) else Path(place)


def _played(source: "Run | Source", policy: str, episodes: int, settings: Mapping[str, Any], *, allow_code: bool) -> Played:
    """What a baseline comes to in a scenario's world, or in a run's; it is kept beside the run."""
    with _refusals(allow_code=allow_code):
        if isinstance(source, Scenario) or not (isinstance(source, Run) or Path(source).is_dir()):
            name, chosen = _chosen(source, settings)
            return play(plan(chosen) if name is None else plan_of(name, chosen), policy, episodes)
        folder = _folder(source)
        if allow_code:
            register_as(folder)
        name = str(folder / SCENARIO_FILE)
        ready = plan_of(name, load(name, _words(settings)))
        found = play(ready, policy, episodes)
        keep(found, folder, ready)
    return found


def _chosen(scenario: Source, settings: Mapping[str, Any]) -> tuple[str | None, Scenario]:
    """A scenario with settings overridden, and the name or path that it was read from, if any."""
    if not isinstance(scenario, Scenario):
        return str(scenario), load(str(scenario), _words(settings))
    if not (overrides := _overrides(settings)):
        return None, scenario
    data = scenario.model_dump(mode="json")
    for key, value in overrides:
        *parents, leaf = key.split(".")
        here = data
        for parent in parents:
            here = here.setdefault(parent, {})
        here[leaf] = value
    return None, check(data, where=scenario.name)


def _overrides(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings as pairs of a dotted key and a plain value; sections may be given as mappings."""
    sections = {key.rpartition(".")[0] for key in dotted_keys(Scenario)}
    sections |= {above.rpartition(".")[0] for above in sections}
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        key = prefix + name
        if isinstance(value, Mapping) and key in sections:
            found += _overrides(value, f"{key}.")
        else:
            found.append((key, _plain(value)))
    return found


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | range):
        return [_plain(one) for one in value]
    return str(value.folder if isinstance(value, Run) else value) if isinstance(value, Path | Run) else value


def _words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed on a command line."""
    return [f"{key}={_word(value)}" for key, value in _overrides(settings)]


def _word(value: Any) -> str:
    """A value as it is typed on a command line."""
    plain = _plain(value)
    if isinstance(plain, str) and re.fullmatch(r"[A-Za-z][\w./:+@-]*", plain) and plain.lower() not in ("true", "false", "null"):
        return plain
    if isinstance(plain, float) and not np.isfinite(plain):
        return str(plain).replace("inf", ".inf").replace("nan", ".nan")
    return json.dumps(plain, ensure_ascii=False)
