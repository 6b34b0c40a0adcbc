"""The schema as a page for people: every setting with type, unit, default, range and meaning, made from the schema itself."""

from collections.abc import Iterator, Set
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scenarios.loading import world_settings
from scenarios.registry import WORLDS
from scenarios.schema import DEFAULT_WORLD, Env, Scenario

_INTRODUCTION = """\
# Scenario reference

Every setting of a scenario, made from the schema by `make docs`. In a file the parts of a dotted key are nested; on the
command line write `kappahop run SCENARIO key.sub=value`. `kappahop schema` prints the same as JSON Schema for editors.
What `env` holds depends on the world: the settings of every world stand under `env`, those of one world under its name.
"""
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def markdown(section: str = "") -> str:
    """The reference page, or only the part of it that is about one section.

    Raises:
        KeyError: there is no such section.
    """
    if not section:
        return "\n".join([_INTRODUCTION, *_section(Scenario, "")]).rstrip() + "\n"
    model = Scenario.model_fields[section].annotation
    assert isinstance(model, type)
    return "\n".join(_section(model, f"{section}.")).rstrip() + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario, in which `env` is one of the worlds' sections, told apart by its name."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    del definitions["Env"]
    worlds = []
    for settings, names in families():
        section = settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= section.pop("$defs", {})
        section["properties"]["name"] |= {"enum": names}
        if DEFAULT_WORLD not in names:  # the one that a scenario without a name has
            section["required"] = [*section.get("required", ()), "name"]
        definitions[settings.__name__] = section
        worlds.append({"$ref": f"#/$defs/{settings.__name__}"})
    schema["properties"]["env"] = {"anyOf": worlds, "description": (Env.__doc__ or "").strip()}
    return schema


def families() -> list[tuple[type[Env], list[str]]]:
    """The worlds by their settings: each model of settings, with the names of the worlds that it is for."""
    found: dict[type[Env], list[str]] = {}
    for name in WORLDS.own:
        found.setdefault(world_settings(name), []).append(name)
    return list(found.items())


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    title = prefix.removesuffix(".") or "top level"
    yield f"## {title}\n\n{(model.__doc__ or '').splitlines()[0]}\n"
    yield from _tables(model, prefix)
    if model is Env:
        for settings, names in families():
            yield f"### env of {', '.join(f'`{name}`' for name in names)}\n\n{(settings.__doc__ or '').splitlines()[0]}\n"
            yield from _tables(settings, prefix, but=Env.model_fields.keys())


def _tables(model: type[BaseModel], prefix: str, *, but: Set[str] = frozenset()) -> Iterator[str]:
    yield "| key | type | default | unit | meaning |\n|---|---|---|---|---|"
    below = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name in but:
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            below.append((kind, f"{prefix}{name}."))
            continue
        if name == "do":  # which of several: told in the title
            continue
        below += [(part, f"{prefix}{name}{_place(kind, part)}.") for part in _models(kind)]
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        default = "required" if field.is_required() else _default(field.default)
        cells = (f"`{prefix}{name}`", _type(field), default, unit, field.description or "")
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for kind, key in below:
        yield from _section(kind, key)


def _models(kind: Any) -> list[type[BaseModel]]:
    """The sections that a list, a choice or a table is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in get_args(kind) for model in _models(part)]


def _place(kind: Any, part: type[BaseModel]) -> str:
    """How one of them is written after its key."""
    if get_origin(kind) is dict:
        return ".NAME"
    if "do" in part.model_fields:
        return f"[do: {get_args(part.model_fields['do'].annotation)[0]}]"
    return "[]" if get_origin(kind) is tuple else ""


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(rule, name):g}" for rule in field.metadata for name, sign in _BOUNDS.items() if hasattr(rule, name)
    ]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and isinstance(ours := extra.get("examples"), list):
        return " · ".join(map(str, [*ours, "a registered name", *(["null"] if field.default is None else [])]))
    return " ".join([_name(field.annotation), *bounds])


def _name(kind: Any) -> str:
    if kind is type(None):
        return "null"
    if get_origin(kind) is Literal:
        return " · ".join(map(str, get_args(kind)))
    if get_origin(kind) is Annotated:
        return _name(get_args(kind)[0])
    if get_origin(kind) is tuple:
        inner, *rest = get_args(kind)
        return f"list of {_name(inner)}" if rest == [...] else f"[{', '.join(map(_name, (inner, *rest)))}]"
    if get_origin(kind) is dict:
        return "sections by name"
    if _models(kind) and not isinstance(kind, type):
        return "section or null" if type(None) in get_args(kind) else "sections"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "sections"
    if get_args(kind):
        return " or ".join(_name(part) for part in get_args(kind))
    return str(getattr(kind, "__name__", kind))


def _default(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`" if value != "" else ""
