"""Reading scenarios: shipped by name or from a file, with `key.sub=value` overrides, into the schema.

Order of precedence, lowest first: the schema's defaults, the algorithm preset, the file, the overrides. Every mistake
becomes one `ScenarioError` whose text names the key, the value and what would be right.
"""

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

from scenarios.recipes import PAPER
from scenarios.registry import ALGORITHMS, WORLDS, RegistryError, nearest
from scenarios.schema import DEFAULT_WORLD, TRACE, Algorithm, Env, OpaqueEnv, Scenario, in_world

MAX_FILE_BYTES = 1 << 20  # the largest shipped scenario is under 2 kB
MAX_DEPTH = 100  # the schema is four deep
MAX_VALUES = 100_000  # half a second's reading; a thousand edges with every setting written out are 30,000
MAX_PROBLEMS = 10  # told at once; a list of thousands would take minutes to explain

Resolve = bool | typing.Literal["if known"]

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


def load(source: str, overrides: Iterable[str] = (), *, resolve_worlds: Resolve = True) -> Scenario:
    """The scenario of a shipped name or a file path, with overrides applied.

    Relative paths in the file start at its folder, so that a folder with a scenario and its graph may be moved; those in
    overrides start at the present folder. An override of what is run, other than seed and budget, drops the description. An
    override of `env.name` that chooses another world drops those settings, of the file and of the overrides before it, that only
    the world has that it leaves.

    Args:
        source: A name from `shipped()`, or the path of a YAML file.
        overrides: Assignments such as `kappa=2` or `algorithm.clip=0.1`; values are read as YAML.
        resolve_worlds: Whether the world's settings are read, which imports the world's code. False in processes that step no
            world: `env` then has what every world has, and the rest is kept unread. "if known": the same where there is no such
            world here, as when runs are compared on another machine.

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
    _presets_of_older_runs(data)
    _anchor(data, path.parent.absolute())
    words = list(overrides)
    model = _settle_world(data, words, source, resolve_worlds=resolve_worlds)
    for assignment in _still_meant(words, data, model):
        _assign(data, assignment, model)
    set_ = {word.partition("=")[0].partition(".")[0].strip() for word in words}
    if not set_ <= _UNDESCRIBED and "description" not in set_:
        data.pop("description", None)  # it told of what is run no longer
    return _checked(data, model, source)


def check(data: dict[Any, Any], *, where: str, resolve_worlds: Resolve = True) -> Scenario:
    """The scenario of plain nested data.

    Args:
        data: Sections and settings.
        where: What opens the message of an error.
        resolve_worlds: As for `load`.

    Raises:
        ScenarioError: a key or value is wrong.
    """
    data = dict(data)
    _presets_of_older_runs(data)
    return _checked(data, _settle_world(data, (), where, resolve_worlds=resolve_worlds), where)


def _checked(data: dict[Any, Any], model: type[Scenario], where: str) -> Scenario:
    _refuse_flags(data, model, where)
    algorithm = data.get("algorithm")
    if isinstance(algorithm, dict) and algorithm.get("preset") == "paper":
        name = str(algorithm.get("name", Algorithm.model_fields["name"].default))
        if name in ALGORITHMS.names() and name not in PAPER:
            raise ScenarioError(
                f"{where}: algorithm.preset: got 'paper' with algorithm.name {name}, for which there is only 'tuned'"
            )
        data = _merged(PAPER.get(name, {}), data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors()
        problems = [_explain(dict(item), model) for item in found[:MAX_PROBLEMS]]
        more = [f"and {len(found) - MAX_PROBLEMS} more"] if len(found) > MAX_PROBLEMS else []
        raise ScenarioError(f"{where}: " + "; ".join(problems + more)) from None


def dump(scenario: Scenario) -> str:
    """The scenario as YAML with every setting written out, readable by `load`."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def all_keys() -> list[str]:
    """Every key that a scenario may set in some world, dotted: those of the schema in its order, then those of the worlds."""
    models: list[type[Scenario]] = [Scenario, *(in_world(world_settings(name)) for name in WORLDS.own)]
    return list(dict.fromkeys(key for model in models for key in dotted_keys(model)))


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that a scenario of this schema may set, dotted, in its order."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from dotted_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def world_settings(name: str) -> type[Env]:
    """The settings of the world of this name.

    Raises:
        RegistryError: there is no such world, its code cannot be imported, or it has no settings.
    """
    settings = getattr(WORLDS.resolve(name), "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, Env)):
        raise RegistryError(f"world {name!r} of {WORLDS.origin(name)}: its 'settings' are no subclass of scenarios.schema.Env")
    return settings


def _settle_world(data: dict[Any, Any], overrides: Sequence[str], where: str, *, resolve_worlds: Resolve) -> type[Scenario]:
    """The schema of a scenario in the world that it names; `data` loses settings of a world that an override leaves.

    Raises:
        ScenarioError: the name is none of a world, or its code cannot be imported.
    """
    is_overridden = any(word.startswith("env.") for word in overrides)
    env = data.get("env", {})
    env = {} if env is None and is_overridden else env
    if not isinstance(env, dict):
        return in_world(Env)  # which says that it is no section
    if not resolve_worlds:
        data["env"] = _of_older_runs(env, None)
        return in_world(OpaqueEnv)
    named = env.get("name", DEFAULT_WORLD)
    chosen = [text for key, _, text in (word.partition("=") for word in overrides) if key.strip() == "env.name"]
    name = _value(chosen[-1]) if chosen else named
    if not isinstance(name, str):
        return in_world(OpaqueEnv)  # which says that it is no name
    try:
        settings = world_settings(name)
        left = world_settings(named) if name != named and named in WORLDS.names() else settings
    except RegistryError as error:
        if resolve_worlds == "if known":
            return in_world(OpaqueEnv)
        raise ScenarioError(f"{where}: env.name: {error}") from None
    gone = left.model_fields.keys() - settings.model_fields.keys()
    data["env"] = {key: value for key, value in _of_older_runs(env, settings).items() if key not in gone}
    return in_world(settings)


def _still_meant(overrides: Iterable[str], data: dict[Any, Any], model: type[Scenario]) -> Iterator[str]:
    """The overrides, but for settings of a world that a later one leaves."""
    env = data.get("env")
    world = env.get("name", DEFAULT_WORLD) if isinstance(env, dict) else DEFAULT_WORLD
    for word in overrides:
        key, _, text = word.partition("=")
        section, _, name = key.strip().partition(".")
        if (section, name) == ("env", "name"):
            world = _value(text)
        is_foreign = section == "env" and name not in _env(model).model_fields and _env(model) is not OpaqueEnv
        if not (is_foreign and world in WORLDS.names() and name in world_settings(world).model_fields):
            yield word


def _of_older_runs(env: dict[Any, Any], settings: type[Env] | None) -> dict[Any, Any]:
    """The section `env`, translated if a run wrote it when one section held the settings of all worlds.

    Such a run wrote down every setting of every world, which no person does; settings that its world does not have are dropped.
    """
    if not {"copies", "partition", "lq", "game"} <= env.keys():
        return env
    flat = {key: value for key, value in env.items() if key not in ("copies", "lq", "game")} | {"num_envs": env["copies"]}
    for part in (env["lq"], env["game"]):
        flat |= part if isinstance(part, dict) else {}
    flat["n_discrete"] = flat.pop("choices", None)
    count = str(env["partition"]).partition("x")[0]
    flat |= {"agents": int(count)} if count.isdecimal() else {}
    return flat if settings is None else {key: value for key, value in flat.items() if key in settings.model_fields}


def _presets_of_older_runs(data: dict[Any, Any]) -> None:
    """Move link presets out of a section `network` that a run wrote, with every setting, when they stood there."""
    network = data.get("network")
    if isinstance(network, dict) and {"presets", "host", "codec", "churn"} <= network.keys():
        data["network"] = {key: value for key, value in network.items() if key != "presets"}
        data.setdefault("presets", network["presets"])


def _moved(key: str, value: Any, model: type[Scenario]) -> str:
    """What is written now for a setting of an earlier version, as the end of a sentence; "" for any other key."""
    section, _, name = key.partition(".")
    if section == "network" and name.partition(".")[0] == "presets":
        return f"link presets stand at the top level of a scenario now, so write {name} instead"
    if section != "env":
        return ""
    if name == "copies":
        return f"it is called env.num_envs now, so write env.num_envs={value}"
    if name in ("choices", "game.choices"):
        return f"it is called env.n_discrete now, so write env.n_discrete={value}"
    part, _, inner = name.partition(".")
    if part in ("lq", "game"):
        return f"settings of a world stand in env itself now, so write env.{inner or 'KEY'}, without {part!r}"
    if name == "partition" and "agents" in _env(model).model_fields:
        return f"a world without robots has a number of agents now, so write env.agents={str(value).partition('x')[0]}"
    return ""


def _env(model: type[Scenario]) -> type[Env]:
    """The section `env` of a schema."""
    found = model.model_fields["env"].annotation
    assert isinstance(found, type)
    assert issubclass(found, Env)
    return found


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
        f"unknown scenario {source!r}{nearest(source, names)}; shipped: {', '.join(names)}; or give the path of a .yaml file"
    )


def _anchor(data: dict[Any, Any], folder: Path) -> None:
    """Let the paths in a scenario's file start at its folder; a part that occurs twice by a YAML alias is anchored once."""
    topology, network = data.get("topology"), data.get("network")
    if isinstance(data.get("init_from"), str):
        data["init_from"] = str(folder / data["init_from"])
    if isinstance(topology, dict):
        for key in ("file", "schedule"):
            if isinstance(topology.get(key), str):
                topology[key] = str(folder / topology[key])
    network = network if isinstance(network, dict) else {}
    lists = [network[key] for key in ("edges", "events") if isinstance(network.get(key), list)]
    own = data.get("presets")
    items = [*(own.values() if isinstance(own, dict) else ()), *(item for items in lists for item in items)]
    for part in (network, *(item for item in items if isinstance(item, dict))):
        preset = part.get("preset")
        if isinstance(preset, str) and preset.startswith(TRACE):
            part["preset"] = TRACE + str(folder / preset.removeprefix(TRACE))


def _assign(data: dict[Any, Any], assignment: str, model: type[Scenario]) -> None:
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ScenarioError(f"override {assignment!r}: expected key=value, e.g. kappa=2 or algorithm.clip=0.1")
    _known(key, text, model)
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


def _known(key: str, text: str, model: type[Scenario]) -> None:
    keys = list(dotted_keys(model))
    if within := [word for word in keys if word.startswith(f"{key}.")]:
        raise ScenarioError(f"{key}: a section; override its keys one by one, e.g. {within[0]}={_example(within[0], model)}")
    if key not in keys and not any(key.startswith(f"{above}.") for above in _open_sections(model)):
        raise ScenarioError(_unknown(key, text, model))


def _unknown(key: str, value: Any, model: type[Scenario]) -> str:
    """What is wrong with a key that the schema does not have."""
    if moved := _moved(key, value, model):
        return f"{key}: no longer a setting; {moved}"
    section, _, name = key.partition(".")
    if section == "env":
        names = list(_env(model).model_fields)
        near = nearest(name, names).replace("'", "'env.", 1)
        return f"{key}: unknown key{near}; this world has {', '.join(names)}"
    return f"{key}: unknown key{nearest(key, dotted_keys(model))}"


def _open_sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Keys below which there may be others that no default tells of: sections that may be null, and tables by name."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _open_sections(kind, f"{prefix}{name}.")
        elif typing.get_origin(kind) is not tuple and any(
            isinstance(one, type) and issubclass(one, BaseModel) for one in typing.get_args(kind)
        ):
            yield prefix + name


def _example(key: str, model: type[BaseModel]) -> Any:
    """The default of a setting."""
    part, _, below = key.partition(".")
    field = model.model_fields[part]
    if below:
        assert isinstance(field.annotation, type)
        return _example(below, field.annotation)
    return field.default


def _merged(below: dict[Any, Any], above: dict[Any, Any]) -> dict[Any, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _explain(item: dict[str, Any], model: type[Scenario]) -> str:
    parts: Sequence[Any] = [part for part in item["loc"] if isinstance(part, str | int)]
    key = ".".join(str(part) for part in parts)
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return _unknown(key, _BRIEF.repr(item["input"]) if isinstance(item["input"], dict) else item["input"], model)
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
    near = nearest(got, re.findall(r"'([^']+)'", choices)) if isinstance(got, str) else ""
    if item["type"] == "too_long":
        message = f"a list of at most {context['max_length']}, not of {context['actual_length']:,}"
    message = _AS_TYPED.get(item["type"], message)
    return f"{key}: got {_BRIEF.repr(got)}{near}; {message[0].lower()}{message[1:]}{_unit(parts, model)}"


def _unit(parts: Sequence[Any], model: Any) -> str:
    extra: Any = None
    for part in parts:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return ""
        extra = model.model_fields[part].json_schema_extra
        model = model.model_fields[part].annotation
    unit = extra.get("unit", "") if isinstance(extra, dict) else ""
    return f" [{unit}]" if unit and unit != "dimensionless" and typing.get_origin(model) is not typing.Literal else ""
