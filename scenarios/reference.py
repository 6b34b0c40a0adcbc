"""The schema as a page for people: every knob with type, unit, default, range and meaning, made from the schema itself."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scenarios.schema import Scenario

_INTRODUCTION = """\
# Scenario reference

Every knob of a scenario, made from the schema by `make docs`. In a file the parts of a dotted key are nested; on the
command line write `kappahop run SCENARIO key.sub=value`. `kappahop schema` prints the same as JSON Schema for editors.
"""
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def markdown() -> str:
    """The reference page."""
    return "\n".join([_INTRODUCTION, *_section(Scenario, "")]).rstrip() + "\n"


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    title = prefix.removesuffix(".") or "top level"
    yield f"## {title}\n\n{(model.__doc__ or '').splitlines()[0]}\n"
    yield "| key | type | default | unit | meaning |\n|---|---|---|---|---|"
    below = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            below.append((kind, f"{prefix}{name}."))
            continue
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        cells = (f"`{prefix}{name}`", _type(field), _default(field.default), unit, field.description or "")
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for kind, key in below:
        yield from _section(kind, key)


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(rule, name):g}" for rule in field.metadata for name, sign in _BOUNDS.items() if hasattr(rule, name)
    ]
    return " ".join([_name(field.annotation), *bounds])


def _name(kind: Any) -> str:
    if kind is type(None):
        return "null"
    if get_origin(kind) is Literal:
        return " · ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "list of positive int"
    if get_args(kind):
        return " or ".join(_name(part) for part in get_args(kind))
    return str(getattr(kind, "__name__", kind))


def _default(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`" if value != "" else ""
