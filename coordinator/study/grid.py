"""The grid of a sweep: which settings take which values, the cells that this makes, and what their folders are called."""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from coordinator.records.plan import check_start, plan_of
from envs.registry import outlook
from scenarios.loading import ScenarioError, load
from scenarios.schema import Scenario

MAX_RUNS = 100_000  # more is a slip of the keyboard
MAX_NAME = 120  # bytes of a folder's name, well under what file systems allow
LABEL = "label"


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid, to be run once per seed.

    Attributes:
        name: Its folder: the settings that vary, with their values; or the scenario's name where none does.
        overrides: What to type for it, those settings included that are the same in all cells.
        keys: The values that these come to, by dotted key.
        scenario: The checked scenario, with the first seed.
        n_agents: Agents it has.
        doubts: What in its world on its graph is worth a warning, a sentence each.
    """

    name: str
    overrides: tuple[str, ...]
    keys: dict[str, Any]
    scenario: Scenario
    n_agents: int
    doubts: tuple[str, ...] = ()

    def seeded(self, seed: int) -> Scenario:
        """The scenario with another seed."""
        return self.scenario.model_copy(update={"seed": seed})


def cells(source: str, words: Sequence[str], seeds: Sequence[int], *, in_process: bool = False) -> list[Cell]:
    """Every combination of the values given, the last setting varying fastest, each checked as `kappahop run` would.

    Args:
        source: A shipped scenario or a file.
        words: `key=a,b,c`; commas within brackets or quotes belong to the value, and `0..3` is 0,1,2,3. Several labels
            (`label=a,b,c`) are not combined with other values: they name the cells, in their order.
        seeds: Ascending; not empty.
        in_process: Whether each run is to have all its agents in one process.

    Raises:
        ScenarioError: a word has no such form, a cell cannot be planned or started, or there are too many.
    """
    axes = [_axis(word) for word in words]
    labels = next((values for key, values in axes if key == LABEL and len(values) > 1), [])
    axes = [(key, values) for key, values in axes if not (labels and key == LABEL)]
    keys = [key for key, _ in axes]
    for key in keys:
        if key == "seed":
            raise ScenarioError("seed: give seeds with --seeds, e.g. --seeds 0..4")
        if keys.count(key) > 1:
            raise ScenarioError(f"{key}: given twice; put all its values into one word, e.g. {key}=a,b")
    n_runs = len(seeds)
    for _, values in axes:
        n_runs *= len(values)
    if n_runs > MAX_RUNS:
        raise ScenarioError(f"{n_runs:,} runs; at most {MAX_RUNS:,} are taken")
    found: dict[str, Cell] = {}
    twins: dict[str, str] = {}  # names by all that sets cells apart
    combined = list(itertools.product(*(values for _, values in axes)))
    if labels and len(labels) != len(combined):
        raise ScenarioError(f"{LABEL}: got {len(labels)} for {len(combined)} cells; give one for each, or one for all")
    for chosen, label in itertools.zip_longest(combined, labels):
        overrides = tuple(f"{key}={value}" for key, value in zip(keys, chosen, strict=True))
        varying = [word for word, (_, values) in zip(overrides, axes, strict=True) if len(values) > 1]
        if label is not None:
            overrides, varying = (*overrides, f"{LABEL}={label}"), [label]
        try:
            ready = plan_of(source, load(source, [*overrides, f"seed={seeds[0]}"]))
            check_start(ready, in_process=in_process)
        except ValueError as error:
            raise ScenarioError(f"{' '.join(varying)}: {error}" if varying else str(error)) from None
        content = ready.scenario.model_dump_json(exclude={"name", "description", LABEL})
        twin = twins.get(content)
        if twin is not None:
            raise ScenarioError(f"{' '.join(varying)}: the same as {twin}")
        name = _folder(varying or [ready.scenario.name], taken=found)
        twins[content] = name
        resolved = ready.scenario.model_dump(mode="json")
        found[name] = Cell(
            name=name,
            overrides=overrides,
            keys={key: _at(resolved, key) for key in (*keys, *([LABEL] if labels else []))},
            scenario=ready.scenario,
            n_agents=ready.spec.n_agents,
            doubts=outlook(ready.scenario.env, ready.deployment.graph()).doubts,
        )
    return list(found.values())


def seeds(text: str) -> list[int]:
    """Seeds of `0..4`, `7`, or several such with commas between them; ascending.

    Raises:
        ScenarioError: it is no such list, or a seed comes twice.

    Example:
        >>> seeds("0..3,7")
        [0, 1, 2, 3, 7]
    """
    found: list[int] = []
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*(\d{1,10})(?:\s*\.\.\s*(\d{1,10}))?\s*", part)
        if numbers is None:
            raise ScenarioError(f"--seeds: got {part!r}; expected numbers such as 0,1,2 or 0..4")
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not first <= last < 2**32:
            raise ScenarioError(f"--seeds: got {part!r}; expected an ascending range below 2^32")
        if last - first >= MAX_RUNS:
            raise ScenarioError(f"--seeds: got {part!r}; at most {MAX_RUNS:,} are taken")
        found.extend(range(first, last + 1))
    if len(set(found)) < len(found):
        raise ScenarioError(f"--seeds: got {text!r}; a seed comes twice")
    return sorted(found)


def split(text: str) -> list[str]:
    """The values of a text between its commas, as YAML divides a list: commas in a list, a mapping or quotes divide nothing.

    Raises:
        ScenarioError: the text is not a list of YAML values.

    Example:
        >>> split("[64,64],[32]")
        ['[64,64]', '[32]']
    """
    if "," not in text:
        return [text]
    try:
        parsed = yaml.compose(f"[{text}]", Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "nested too deep"
        raise ScenarioError(f"got {text!r}; expected values with commas between them ({problem})") from None
    assert isinstance(parsed, yaml.SequenceNode), "it begins with a bracket"
    return [text[one.start_mark.index - 1 : one.end_mark.index - 1].strip() for one in parsed.value]


def _axis(word: str) -> tuple[str, list[str]]:
    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(f"{word!r}: expected key=value or key=a,b,c")
    try:
        values = [one for value in split(text) for one in _range(value)]
    except ScenarioError as error:
        raise ScenarioError(f"{key}: {error}") from None
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ScenarioError(f"{key}: value {twice[0]!r} is given twice")
    return key.strip(), values


def _range(text: str) -> Iterable[str]:
    """The whole numbers of `0..3`; of anything else itself.

    Raises:
        ScenarioError: the range is empty or too long.
    """
    ends = re.fullmatch(r"(-?\d{1,10})\.\.(-?\d{1,10})", text)
    if ends is None:
        return (text,)
    first, last = int(ends[1]), int(ends[2])
    if not first < last < first + MAX_RUNS:
        raise ScenarioError(f"got {text!r}; expected an ascending range of at most {MAX_RUNS:,} numbers, such as 0..3")
    return map(str, range(first, last + 1))


def _at(tree: dict[str, Any], key: str) -> Any:
    return functools.reduce(lambda below, part: below[part], key.split("."), tree)


def _folder(words: Sequence[str], *, taken: dict[str, Cell]) -> str:
    bare = (re.sub(r"[][{}()'\"\s]", "", word) for word in words)
    plain = ",".join(re.sub(r"[^A-Za-z0-9.=+_-]+", "-", word) for word in bare)[:MAX_NAME]
    return next(name for i in itertools.count(1) if (name := plain if i == 1 else f"{plain}-{i}") not in taken)
