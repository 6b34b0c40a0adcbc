"""Reading finished and unfinished runs: which there are in a folder, what sets them apart, and their tables as arrays.

Theory of operation. A run is a folder with a scenario and a database; nothing else is needed, so runs of a sweep, runs
started one by one and runs that still go on are read alike. Runs whose scenarios agree in everything but the seed are one
*cell*; a cell is named by the settings in which the scenarios of the cells differ. Tables are read with whatever columns they
have, and asked for by name.
"""

import contextlib
import json
import sqlite3
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from coordinator.records.database import metric_in_sql
from coordinator.records.run_sqlite import DATABASE, Reader
from coordinator.run.collector import Divergence
from coordinator.run.metrics import kept, latest
from scenarios.loading import ScenarioError, dotted_keys, load
from scenarios.schema import Scenario
from topology.deployment import SCENARIO_FILE, Deployment
from topology.wire.ledger import REASONS

Judged = Literal["evaluated", "training"]  # by which episodes: of evaluations, or of the training, exploration included
TableName = Literal["evaluations", "evaluation_traffic", "episodes", "rounds", "traffic", "ages", "events"]
Table = dict[str, NDArray[Any]]
Array = NDArray[np.float64]

_DTYPES = {"INTEGER": np.int64, "REAL": np.float64}  # what else there is, is text
NOT_RECORDED = "not recorded"  # of a setting that a run's version did not know; today's default need not be what it did
_MOST_SHOWN = 60  # characters of a value in a name
_UNNAMED = {"name", "description", "label", "seed", "record"}  # keys and sections that set no cell apart: they change no result


@contextlib.contextmanager
def reading(*places: Path | str) -> Iterator[None]:
    """Work on folders that may hold anything: what breaks on their contents becomes one sentence.

    Contents are checked where they are read, and what is wrong is named there. This is the last line of defence, for what was
    not thought of; the sentence says where in the code it broke.

    Raises:
        ScenarioError: something broke.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError, sqlite3.Error) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}; {Path(last.filename).name}:{last.lineno}"
        raise ScenarioError(f"{', '.join(map(str, places))}: cannot be read as a run ({what})") from error


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        folder: Where it is.
        scenario: What was run.
    """

    folder: Path
    scenario: Scenario

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What `--json` prints of it; {} while it goes on."""
        try:
            found = {key: json.loads(value) for key, value in _query(self.folder, "SELECT key, value FROM meta")[1]}
        except (ValueError, TypeError, RecursionError) as error:
            broken = _unlike(self.folder, "meta", error)
            raise broken from None
        return kept(found, self.folder / DATABASE)

    @cached_property
    def deployment(self) -> Deployment:
        """Its sizes and its graph."""
        return Deployment.read(self.folder)

    @property
    def planned_steps(self) -> int:
        """Environment steps of the whole run, over all copies."""
        return self.scenario.n_rounds * self.scenario.rollout.steps * self.scenario.env.num_envs

    @property
    def is_complete(self) -> bool:
        """Whether it has ended with all its steps done, and its numbers have stayed finite."""
        return bool(self.metrics.get("env_steps", 0) >= self.planned_steps) and not self.diverged

    @property
    def diverged(self) -> list[Divergence]:
        """Whose numbers are no longer finite, since when; [] of a run that is well, or that goes on."""
        return list(self.metrics.get("diverged") or ())

    @property
    def finishers(self) -> set[int]:
        """Nodes that have ended the last round: in a run that is complete all but those that died while the others went on."""
        last = self.scenario.n_rounds - 1
        return {int(agent) for (agent,) in _query(self.folder, f"SELECT agent FROM rounds WHERE round = {last}")[1]}

    @property
    def steps_done(self) -> int:
        """Environment steps of the rounds reported so far."""
        last = _query(self.folder, "SELECT env_step FROM rounds ORDER BY round DESC LIMIT 1")[1]
        return int(last[0][0]) if last else 0

    def table(self, name: TableName) -> Table:
        """A whole table by column, in the order of its key; in columns of numbers what is missing is nan; {} in older runs."""
        kinds = {column: kind for _, column, kind, *_ in _query(self.folder, f"PRAGMA table_info({name})")[1]}
        if not kinds:
            return {}
        names, rows = _query(self.folder, f"SELECT * FROM {name}")
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        try:
            return {
                column: np.array(values, dtype=_dtype(kinds[column], values))
                for column, values in zip(names, columns, strict=True)
            }
        except (ValueError, TypeError, OverflowError) as error:
            broken = _unlike(self.folder, name, error)
            raise broken from None

    @cached_property
    def curve(self) -> "Curve":
        """What was known after each round, as far as the run had come when it was first asked for."""
        return _curve(self)

    @cached_property
    def evaluated_curve(self) -> "Curve":
        """The same by its evaluations, each of which is known from its round on; a team that does not learn is one throughout."""
        return self.curve if not self.deployment.learns else _evaluated_curve(self)

    def course(self, judged: Judged) -> "Curve":
        """What was known after each round, by evaluations or by the episodes of the training."""
        return self.evaluated_curve if judged == "evaluated" else self.curve

    def is_judged(self, judged: Judged) -> bool:
        """Whether it has come to a return by now."""
        course = self.course(judged)
        return bool(len(course.ret) and np.isfinite(course.ret[-1]))

    @property
    def draws(self) -> bool:
        """Whether policies draw their actions in its evaluations."""
        return self.scenario.evaluation.draws(limited=bool(self.deployment.cost_limits))

    def reached(self, judged: Judged) -> dict[str, Any]:
        """Its metrics, as far as they are known, with return, progress and cost by evaluations or by the training."""
        if judged == "training":
            return self.so_far
        course = self.evaluated_curve
        limits = self.metrics.get("limits") or ()
        ret, cost, length = (float(values[-1]) if len(values) else np.nan for values in (course.ret, course.cost, course.length))
        if getattr(self.scenario.env, "cost", "team") == "local" and limits and all(one["mean"] is not None for one in limits):
            cost = sum(one["mean"] for one in limits)  # a limit is each agent's, so that of the one that pays most counts
        return self.so_far | {"return_mean": ret, "progress_mean": self.deployment.progress(ret, length), "cost_mean": cost}

    @property
    def so_far(self) -> dict[str, Any]:
        """Of its metrics those that cells are compared by, at the end of its curve if it still goes on; nan: not yet known."""
        if self.is_complete or self.diverged:
            return self.metrics
        curve, limits = self.curve, self.deployment.cost_limits
        steps, sent, ret, cost, length = (
            values[-1] if len(values) else np.nan
            for values in (curve.env_step, curve.wire_bytes, curve.ret, curve.cost, curve.length)
        )
        return {
            "return_mean": float(ret),
            "progress_mean": self.deployment.progress(ret, length),
            "cost_mean": float(cost),
            "cost_limit": sum(limits) if limits else None,
            "bytes_per_agent_step": float(sent / (self.deployment.n_agents * steps)),
        }

    def learning(self, metric: str) -> tuple[Array, Array]:
        """A metric of how agents learn: a mean over those that reported it, after each round in which any did.

        Returns:
            Environment steps by then, and the mean.
        """
        found = _numbers(self, f"SELECT env_step, avg({metric_in_sql(metric)}) FROM rounds GROUP BY round ORDER BY round")
        known = np.isfinite(found[:, 1])
        return found[known, 0], found[known, 1]

    def rates(self, stretches: int) -> tuple[Array, Array]:
        """Environment steps per second of wall time, in equal stretches of the rounds so far, at most so many.

        Returns:
            Environment steps by the end of each stretch, and the rate in it.
        """
        found = _numbers(self, "SELECT env_step, max(wall_s) FROM rounds GROUP BY round ORDER BY round")
        size = -(-len(found) // stretches)
        ends = np.concatenate([[[0.0, 0.0]], found[size - 1 :: size]]) if size else np.zeros((1, 2))
        steps, seconds = np.diff(ends, axis=0).T
        return ends[1:][seconds > 0, 0], steps[seconds > 0] / seconds[seconds > 0]

    def traffic(self, stretches: int) -> "Traffic":
        """What agents sent each other, in equal stretches of the rounds so far, at most so many."""
        n_rounds = self._n_rounds
        parts = min(stretches, n_rounds)
        sums = ", ".join(f"sum({column})" for column in ("wire_bytes", "messages", "delivered", "in_flight", *REASONS))
        found = _numbers(
            self,
            f"SELECT round * {parts} / {n_rounds}, CAST(src AS INTEGER), CAST(dst AS INTEGER), {sums} FROM traffic "
            f"WHERE plane = 'peer' AND round < {n_rounds} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            if parts
            else "SELECT 1 WHERE 0",
        )
        edges = -(-np.arange(parts + 1) * n_rounds // max(parts, 1))
        lengths = np.diff(edges)
        links: dict[tuple[int, int], Array] = {}
        for row in found:
            part, src, dst = (int(value) for value in row[:3])
            links.setdefault((src, dst), np.zeros(parts))[part] = row[3] / lengths[part]
        totals = found[:, 4:].sum(axis=0) if len(found) else np.zeros(3 + len(REASONS))
        messages, delivered, in_flight, *dropped = (int(total) for total in totals)
        return Traffic(edges, links, messages, delivered, in_flight, dict(zip(REASONS, dropped, strict=True)))

    def ages(self, stretches: int) -> tuple[Array, Array]:
        """How old the states of others were that agents acted on, in equal stretches of the rounds so far.

        Returns:
            Rounds by the end of each stretch in which any were used, and their mean age in seconds.
        """
        n_rounds = self._n_rounds
        edges = -(-np.arange(min(stretches, n_rounds) + 1) * n_rounds // max(min(stretches, n_rounds), 1))
        aged, used = np.diff(self._aged[edges], axis=0).T
        return edges[1:][used > 0].astype(np.float64), aged[used > 0] / used[used > 0]

    def ages_and_costs(self) -> tuple[Array, Array]:
        """Of every episode so far, how old the states of others were that agents acted on, and what it cost.

        Ages are recorded by round, over all agents and copies: the age of an episode is the mean over the states used in
        the rounds through which it ran. Episodes without such states are left out.

        Returns:
            Mean age in seconds and cost, each of shape (episodes,), in order of their end.
        """
        known = np.isfinite(self._episodes[:, 2:]).all(axis=1)
        ended, length, cost = self._episodes[known][:, [0, 1, 3]].T
        steps, copies = self.scenario.rollout.steps, self.scenario.env.num_envs
        begun = np.maximum(ended // copies - length, 0) // steps
        first, behind = begun.astype(np.int64), np.ceil(ended / (copies * steps)).astype(np.int64)
        seen = behind <= self._n_rounds
        aged, used = (self._aged[behind[seen]] - self._aged[first[seen]]).T
        # sums of the same ages in another order may differ in their last digits: nanoseconds do
        return np.round(aged[used > 0] / used[used > 0], 9), cost[seen][used > 0]

    @cached_property
    def _aged(self) -> Array:
        """Before each round, and after the last, the ages in seconds of all states used so far, and their number."""
        sums = np.zeros((self._n_rounds + 1, 2))
        found = _numbers(
            self, f"SELECT round, sum(used * mean_s), sum(used) FROM ages WHERE round < {self._n_rounds} GROUP BY round"
        )
        sums[found[:, 0].astype(np.int64) + 1] = found[:, 1:]
        return np.cumsum(sums, axis=0)

    @cached_property
    def _episodes(self) -> Array:
        """Environment step, length, return and cost of all episodes, in order of their end; nan where a fault ended one."""
        return _numbers(self, 'SELECT env_step, length, "return", cost FROM episodes ORDER BY env_step, copy')

    @property
    def _n_rounds(self) -> int:
        return len(self.curve.env_step)


@dataclass(frozen=True, slots=True)
class Curve:
    """A run's course, one value per round that all have reported, each array of shape (rounds,).

    Return and cost are what `kappahop run` would have reported had it stopped there: means over the episodes that `latest`
    names. They are nan before the first episode has ended, and where a fault ended one of these episodes.

    Attributes:
        env_step: Environment steps by the end of each round, over all copies.
        wire_bytes: Bytes on the links between agents by then.
        virtual_s: Seconds of the modelled deployment by then, of the agent that was last.
        wall_s: Seconds of wall time by then, from the beginning of the run.
        ret: Return of an episode.
        cost: Cost of an episode, the sum over costs.
        length: Steps of an episode.
    """

    env_step: Array
    wire_bytes: Array
    virtual_s: Array
    wall_s: Array
    ret: Array
    cost: Array
    length: Array


def judged_by(runs: Sequence[Run], *, training: bool) -> Judged:
    """By which episodes runs are judged: evaluations, unless the training is asked for or no run has an evaluation."""
    return "evaluated" if not training and any(run.is_judged("evaluated") for run in runs) else "training"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What agents of a run sent each other.

    Attributes:
        edges: First round of each stretch of the run, and the end of the last, shape (stretches + 1,).
        links: By directed link, wire bytes per round in each stretch, shape (stretches,); links never used are missing.
        messages: In all.
        delivered: Those that arrived.
        in_flight: Those that were on the way when the run ended.
        dropped: Those that did not arrive, by reason.
    """

    edges: NDArray[np.int64]
    links: dict[tuple[int, int], Array]
    messages: int
    delivered: int
    in_flight: int
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Cell:
    """Runs that differ in their seed only.

    Attributes:
        settings: Where its scenario differs from those of other cells: value by dotted key, κ last.
        runs: By ascending seed.
        words: The same values as they are shown; long ones are cut, and numbered where that makes two alike.
        label: What its runs are labelled, if all of them are, and alike.
        telling: Keys that its name holds: all, or those that tell it from other cells of its label.
        group: What is said of it and of the cells that differ from it in κ alone; "" if nothing is left.
    """

    settings: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    label: str = ""
    telling: tuple[str, ...] = ()
    group: str = ""

    @property
    def name(self) -> str:
        """Its label and its settings as on a command line; with nothing to tell it from, the name of its scenario."""
        return " ".join([*([self.label] if self.label else []), *self._said(self.telling)]) or self.runs[0].scenario.name

    @property
    def heading(self) -> str:
        """The same without κ; "" if nothing is left."""
        return " ".join([*([self.label] if self.label else []), *self._said(key for key in self.telling if key != "kappa")])

    def said(self, keys: Iterable[str]) -> str:
        """Some of its settings as on a command line."""
        return " ".join(self._said(keys))

    def _said(self, keys: Iterable[str]) -> list[str]:
        return [f"{key}={self.words[key]}" for key in keys]


def find(places: Sequence[Path]) -> list[Run]:
    """All runs in the given folders and below them, in order of their paths.

    Evaluations within a run are not among them, nor is a run whose database is only being made.

    Raises:
        ScenarioError: there is none, or one has a scenario that cannot be read.
    """
    folders = [folder for folder in dict.fromkeys(one for place in places for one in _run_folders(place)) if _has_tables(folder)]
    if not folders:
        raise ScenarioError(f"no run in {', '.join(map(str, places))}: expected folders with {SCENARIO_FILE} and {DATABASE}")
    return [Run(folder, load(str(folder / SCENARIO_FILE), resolve_worlds="if known")) for folder in folders]


def cells(runs: Sequence[Run]) -> list[Cell]:
    """Runs sorted into cells, in ascending order of the settings that set them apart.

    Raises:
        ScenarioError: two runs are of the same scenario and seed.
    """
    keys = list(dict.fromkeys(key for model in {type(run.scenario): None for run in runs} for key in dotted_keys(model)))
    keys = [key for key in keys if key.split(".")[0] not in _UNNAMED]
    flat = [{key: recorded(run.scenario, key) for key in keys} for run in runs]
    differing = [key for key in keys if any(one[key] != flat[0][key] for one in flat)]
    differing.sort(key=lambda key: key == "kappa")  # κ last: it is what the others are compared over
    found: dict[str, Cell] = {}
    for run, settings in zip(runs, flat, strict=True):
        own = {key: settings[key] for key in differing}
        cell = found.setdefault(repr(own), Cell(own))
        twin = next((other for other in cell.runs if other.scenario.seed == run.scenario.seed), None)
        if twin is not None:
            raise ScenarioError(f"{run.folder} and {twin.folder} hold the same run: same scenario, same seed")
        cell.runs.append(run)
    for cell in found.values():
        cell.runs.sort(key=lambda run: run.scenario.seed)
    return _named(sorted(found.values(), key=lambda cell: [_rank(value) for value in cell.settings.values()]))


def _named(found: list[Cell]) -> list[Cell]:
    """The cells with what their names are made of."""
    keys = tuple(found[0].settings) if found else ()
    words = {key: _told_apart([shown(cell.settings[key]) for cell in found]) for key in keys}
    labels = [said.pop() if len(said := {run.scenario.label for run in cell.runs}) == 1 else "" for cell in found]
    telling = {"": keys}
    for label in {*labels} - {""}:
        kin = [cell.settings for cell, its in zip(found, labels, strict=True) if its == label]
        telling[label] = tuple(key for key in keys if any(settings[key] != kin[0][key] for settings in kin))
    named = [
        replace(cell, words={key: words[key][shown(cell.settings[key])] for key in keys}, label=label, telling=telling[label])
        for cell, label in zip(found, labels, strict=True)
    ]
    common = [cell.said(key for key in keys if key != "kappa") for cell in named]
    headings: dict[str, set[str]] = {}
    for cell, group in zip(named, common, strict=True):
        headings.setdefault(group, set()).add(cell.heading)
    return [
        replace(cell, group=cell.heading if len(headings[group]) == 1 else group)
        for cell, group in zip(named, common, strict=True)
    ]


def _told_apart(texts: Sequence[str]) -> dict[str, str]:
    """For each text what is shown of it: all, or its beginning, with a number where two begin alike."""
    cut = {text: text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…" for text in texts}
    alike: dict[str, list[str]] = {}
    for text, beginning in cut.items():
        alike.setdefault(beginning, []).append(text)
    return {text: short if len(alike[short]) == 1 else f"{short} ({alike[short].index(text) + 1})" for text, short in cut.items()}


def recorded(scenario: Scenario, key: str) -> Any:
    """A setting of a run by its dotted key; None where its world has no such setting.

    A run writes every setting down: one that is missing came with a later version.
    """
    here: Any = scenario
    for part in key.split("."):
        if part not in type(here).model_fields:
            return None
        if part not in here.model_fields_set:
            return NOT_RECORDED
        here = getattr(here, part)
    return here


def shown(value: Any) -> str:
    """A setting's value as it is typed on a command line; of a section, what is set."""
    if isinstance(value, BaseModel):
        return shown(value.model_dump(exclude_defaults=True))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(one)}" for key, one in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return "[" + ",".join(map(shown, value)) + "]" if isinstance(value, list | tuple) else str(value)


def _rank(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return (not is_number, float(value) if is_number else 0.0, shown(value))


def _run_folders(place: Path) -> Iterator[Path]:
    if (place / DATABASE).is_file() and (place / SCENARIO_FILE).is_file():
        yield place
    elif place.is_dir():
        for below in sorted(place.iterdir()):
            if below.is_dir() and not below.is_symlink():
                yield from _run_folders(below)


def _has_tables(folder: Path) -> bool:
    return bool(_query(folder, "SELECT 1 FROM sqlite_master WHERE name = 'events'")[1])  # the last that is made


def _dtype(kind: str, values: Sequence[Any]) -> type[np.generic]:
    if kind == "INTEGER" and None in values:  # only floating point has a word for what is missing
        return np.float64
    return _DTYPES.get(kind, np.object_)


def _query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with contextlib.closing(Reader(folder)) as database:
        return database.query(sql)


def _curve(run: Run) -> Curve:
    # of a run that goes on the last round may still lack reports; of one that has ended, only those of agents that died
    whole = "" if run.is_complete else f"HAVING count(*) = {run.deployment.n_nodes}"
    rounds = _numbers(
        run, f"SELECT round, env_step, max(virtual_s), max(wall_s) FROM rounds GROUP BY round {whole} ORDER BY round"
    )
    sent = _numbers(run, "SELECT round, sum(wire_bytes) FROM traffic WHERE plane != 'world' GROUP BY round ORDER BY round")
    episodes = run._episodes
    wire = np.concatenate([[0.0], np.cumsum(sent[:, 1])])[np.searchsorted(sent[:, 0], rounds[:, 0], side="right")]
    first, behind = latest(episodes[:, 0], rounds[:, 1], learns=run.deployment.learns)
    metrics = episodes[:, [2, 3, 1]]
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(np.nan_to_num(metrics), axis=0)])
    faulty = np.concatenate([[0], np.cumsum(np.isnan(metrics).any(axis=1))])
    known = (behind > first) & (faulty[behind] == faulty[first])  # a mean over those that went well would not be the team's
    means = np.where(known[:, None], (sums[behind] - sums[first]) / np.maximum(behind - first, 1)[:, None], np.nan)
    ret, cost, length = means.T
    steps, virtual_s, wall_s = rounds[:, 1:].T
    return Curve(env_step=steps, wire_bytes=wire, virtual_s=virtual_s, wall_s=wall_s, ret=ret, cost=cost, length=length)


def _evaluated_curve(run: Run) -> Curve:
    training = run.curve
    nothing = np.full(len(training.env_step), np.nan)
    found = np.zeros((0, 4))
    if _query(run.folder, "SELECT 1 FROM sqlite_master WHERE name = 'evaluations'")[1]:  # older runs have none
        # of the last policies the larger evaluation counts; the evaluation at the end of earlier ones is no part of the course
        means = ", ".join(f"CASE WHEN count({name}) = count(*) THEN avg({name}) END" for name in ('"return"', "cost", "length"))
        found = _numbers(
            run,
            f"SELECT env_step, {means} FROM evaluations WHERE at_end = (round = {run.scenario.n_rounds - 1}) "
            "GROUP BY round ORDER BY round",
        )
        at_end = f"SELECT 1 FROM evaluations WHERE at_end AND round = {run.scenario.n_rounds - 1} LIMIT 1"
        if run.is_complete and not _query(run.folder, at_end)[1]:  # earlier policies are not those it ended with
            found = found[:0]
    place = np.searchsorted(found[:, 0], training.env_step, side="right") - 1
    ret, cost, length = (np.where(place < 0, nothing, column[place]) if len(found) else nothing for column in found[:, 1:].T)
    return replace(training, ret=ret, cost=cost, length=length)


def _numbers(run: Run, sql: str) -> Array:
    names, rows = _query(run.folder, sql)
    try:
        return np.array(rows, dtype=np.float64).reshape(-1, len(names))
    except (ValueError, TypeError, OverflowError) as error:
        broken = _unlike(run.folder, sql.partition(" FROM ")[2].split(" ")[0], error)
        raise broken from None


def _unlike(folder: Path, table: str, error: Exception) -> ScenarioError:
    return ScenarioError(f"{folder / DATABASE}: cannot be read (table {table}: {' '.join(str(error).split())[:200]})")
