"""Reading scenarios: shipped by name or from a file, with `key.sub=value` overrides, into the schema.

Order of precedence, lowest first: the schema's defaults, the algorithm preset, the file, the overrides. Every mistake
becomes one `ScenarioError` whose text names the key, the value and what would be right.
"""

import difflib
import re
import reprlib
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from scenarios.recipes import PAPER, RECIPES
from scenarios.schema import TRACE, Algorithm, Scenario

MAX_FILE_BYTES = 1 << 20  # the largest shipped scenario is under 2 kB
MAX_DEPTH = 100  # the schema is four deep
MAX_VALUES = 100_000  # half a second's reading; a thousand edges with every setting written out are 30,000
MAX_PROBLEMS = 10  # told at once; a list of thousands would take minutes to explain

_UNDESCRIBED = {"name", "description", "label", "seed", "budget", "supervision", "record"}  # no description speaks of these
_SECTION = "input should be keys with values, e.g. {key: value}"
_AS_TYPED = {  # what pydantic says in words of Python, by its type of error
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "tuple_type": "input should be a list, e.g. [a, b]",
}
_BRIEF = reprlib.Repr()  # a nest of aliases has a repr without end
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 60
_BRIEF.maxlevel = _BRIEF.maxlist = 3


class ScenarioError(ValueError):
    """A scenario that cannot be run; the text names the key, the value and what is allowed."""


def shipped() -> dict[str, Path]:
    """Names and paths of the scenarios that come with the package, in alphabetical order."""
    folder = Path(str(resources.files("scenarios"))) / "shipped"
    return {path.stem: path for path in sorted(folder.rglob("*.yaml"), key=lambda path: path.stem)}


def load(source: str, overrides: Iterable[str] = ()) -> Scenario:
    """The scenario of a shipped name or a file path, with overrides applied.

    Relative paths in the file start at its folder, so that a folder with a scenario and its graph may be moved; those in
    overrides start at the present folder. An override of what is run, other than seed and budget, drops the description.

    Args:
        source: A name from `shipped()`, or the path of a YAML file.
        overrides: Assignments such as `kappa=2` or `algorithm.clip=0.1`; values are read as YAML.

    Returns:
        The checked scenario.

    Raises:
        ScenarioError: the source is unknown or unreadable, or a key or value is wrong.

    Example:
        >>> load("quickstart", ["kappa=0"]).kappa
        0
    """
    path = _locate(source)
    try:
        size = path.stat().st_size
        data = _read(path.read_text(encoding="utf-8")) if size <= MAX_FILE_BYTES else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ScenarioError(f"{path}: cannot be read as YAML: {_told(error)}") from error
    if size > MAX_FILE_BYTES:
        raise ScenarioError(f"{path}: larger than {MAX_FILE_BYTES} bytes, not a scenario")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ScenarioError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    data.setdefault("name", path.stem)
    _anchor(data, path.parent.absolute())
    words = list(overrides)
    for assignment in words:
        _assign(data, assignment)
    set_ = {word.partition("=")[0].partition(".")[0].strip() for word in words}
    if not set_ <= _UNDESCRIBED and "description" not in set_:
        data.pop("description", None)  # it told of what is run no longer
    return check(data, where=source)


def check(data: dict[Any, Any], *, where: str) -> Scenario:
    """The scenario of plain nested data.

    Raises:
        ScenarioError: a key or value is wrong; `where` opens the message.
    """
    _refuse_flags(data, Scenario, where)
    algorithm = data.get("algorithm")
    if isinstance(algorithm, dict) and algorithm.get("preset") == "paper":
        name = str(algorithm.get("name", Algorithm.model_fields["name"].default))
        if name in RECIPES and name not in PAPER:
            raise ScenarioError(
                f"{where}: algorithm.preset: got 'paper' with algorithm.name {name}, for which there is only 'tuned'"
            )
        data = _merged(PAPER.get(name, {}), data)
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        found = error.errors()
        problems = [_explain(dict(item)) for item in found[:MAX_PROBLEMS]]
        more = [f"and {len(found) - MAX_PROBLEMS} more"] if len(found) > MAX_PROBLEMS else []
        raise ScenarioError(f"{where}: " + "; ".join(problems + more)) from None


def dump(scenario: Scenario) -> str:
    """The scenario as YAML with every setting written out, readable by `load`."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def dotted_keys(model: type[BaseModel] = Scenario, prefix: str = "") -> Iterator[str]:
    """Every key that a scenario may set, dotted, in the order of the schema."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from dotted_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _locate(source: str) -> Path:
    names = shipped()
    if source in names:
        return names[source]
    path = Path(source)
    if path.is_dir():
        raise ScenarioError(f"{source}: a folder, not a scenario; give the path of a .yaml file, such as a run's scenario.yaml")
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ScenarioError(f"{source}: no such file")
        return path
    raise ScenarioError(
        f"unknown scenario {source!r}{_nearest(source, names)}; shipped: {', '.join(names)}; or give the path of a .yaml file"
    )


def _anchor(data: dict[Any, Any], folder: Path) -> None:
    """Let the paths in a scenario's file start at its folder; a part that occurs twice by a YAML alias is anchored once."""
    topology, network = data.get("topology"), data.get("network")
    if isinstance(topology, dict) and isinstance(topology.get("file"), str):
        topology["file"] = str(folder / topology["file"])
    if not isinstance(network, dict):
        return
    lists = [network[key] for key in ("edges", "events") if isinstance(network.get(key), list)]
    for part in (network, *(item for items in lists for item in items if isinstance(item, dict))):
        preset = part.get("preset")
        if isinstance(preset, str) and preset.startswith(TRACE):
            part["preset"] = TRACE + str(folder / preset.removeprefix(TRACE))


def _assign(data: dict[Any, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ScenarioError(f"override {assignment!r}: expected key=value, e.g. kappa=2 or algorithm.clip=0.1")
    _known(key)
    *parents, leaf = key.split(".")
    here = data
    for parent in parents:
        below = here[parent] = {} if here.get(parent) is None else here[parent]
        if not isinstance(below, dict):
            raise ScenarioError(f"{key}: {parent!r} holds a value in the file, not a section")
        here = below
    here[leaf] = _value(text)


def _value(text: str) -> Any:
    try:
        return _read(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ScenarioError(f"override value {_BRIEF.repr(text)} cannot be read as YAML: {_told(error)}") from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split()).replace('in "<unicode string>", line', "in line")


def _read(text: str) -> Any:
    _measure(text)
    return yaml.load(text, Loader=_Loader)


def _measure(text: str) -> None:
    """Make sure that a text can be read, and soon.

    libyaml's loader, other than its parser, falls over what is nested too deep. An alias counts as all that it stands for: a few
    of them stand for more than any memory holds. What does not fit its tag raises whatever the tag's constructor happens to.

    Raises:
        ValueError: it is nested too deep, holds too many values, or a tag.
    """
    values, sizes = 0, dict[str, int]()
    begun: list[tuple[str | None, int]] = []  # of every collection that is open its anchor, and the values before it
    for event in yaml.parse(text, Loader=_Loader):
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if tag not in (None, _STR):
            raise ValueError(f"tag {tag} is not taken")
        if isinstance(event, yaml.AliasEvent):
            values += sizes.get(str(anchor), 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((anchor, values))
            values += 1
            if anchor is not None:
                sizes[anchor] = MAX_VALUES  # within itself it would have no end
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if anchor is not None:
                sizes[anchor] = 1
        if len(begun) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values, what aliases stand for counted every time")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's, ten times as fast, if there
    """YAML as people mean it: 1e6 is a number, `yes`, 0x1 and `<<` are words, and a key that is given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            ((twice, _),) = Counter(keys).most_common(1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


_BOOL, _FLOAT, _INT, _MERGE, _STR = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "merge", "str"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in (_BOOL, _FLOAT, _INT, _MERGE)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


def _refuse_flags(data: dict[Any, Any], model: type[BaseModel], where: str, prefix: str = "") -> None:
    # pydantic would take true for 1
    for name, field in model.model_fields.items():
        value, kind = data.get(name), field.annotation
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            _refuse_flags(value, kind, where, f"{prefix}{name}.")
        elif isinstance(value, bool) and bool not in (kind, *typing.get_args(kind)):
            raise ScenarioError(f"{where}: {prefix}{name}: got {str(value).lower()}; {field.description}")


def _known(key: str) -> None:
    keys = list(dotted_keys())
    if within := [word for word in keys if word.startswith(f"{key}.")]:
        raise ScenarioError(f"{key}: a section; override its keys one by one, e.g. {within[0]}={_example(within[0])}")
    if key not in keys and not any(key.startswith(f"{above}.") for above in _open_sections()):
        raise ScenarioError(f"{key}: unknown key{_nearest(key, keys)}")


def _open_sections(model: type[BaseModel] = Scenario, prefix: str = "") -> Iterator[str]:
    """Keys below which there may be others that no default tells of: sections that may be null, and tables by name."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _open_sections(kind, f"{prefix}{name}.")
        elif typing.get_origin(kind) is not tuple and any(
            isinstance(one, type) and issubclass(one, BaseModel) for one in typing.get_args(kind)
        ):
            yield prefix + name


def _example(key: str) -> Any:
    here: Any = Scenario()
    for part in key.split("."):
        here = getattr(here, part)
    return here


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _merged(below: dict[Any, Any], above: dict[Any, Any]) -> dict[Any, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _explain(item: dict[str, Any]) -> str:
    parts: Sequence[Any] = [part for part in item["loc"] if isinstance(part, str | int)]
    key = ".".join(str(part) for part in parts)
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{_nearest(key, dotted_keys())}"
    if item["type"] == "value_error":
        return f"{key}.{message}" if key else message
    if item["type"] == "missing":
        return f"{key}: missing"
    got, context = item["input"], item.get("ctx", {})
    choices = str(context.get("expected_tags", context.get("expected", "")))
    if item["type"] == "union_tag_invalid":
        tag = str(context["discriminator"]).strip("'")
        key, got = f"{key}.{tag}", context["tag"]
        message = f"input should be one of {choices}"
    near = _nearest(got, re.findall(r"'([^']+)'", choices)) if isinstance(got, str) else ""
    if item["type"] == "too_long":
        message = f"a list of at most {context['max_length']}, not of {context['actual_length']:,}"
    message = _AS_TYPED.get(item["type"], message)
    return f"{key}: got {_BRIEF.repr(got)}{near}; {message[0].lower()}{message[1:]}{_unit(parts)}"


def _unit(parts: Sequence[Any]) -> str:
    model: Any = Scenario
    extra: Any = None
    for part in parts:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return ""
        extra = model.model_fields[part].json_schema_extra
        model = model.model_fields[part].annotation
    unit = extra.get("unit", "") if isinstance(extra, dict) else ""
    return f" [{unit}]" if unit and unit != "dimensionless" and typing.get_origin(model) is not typing.Literal else ""
