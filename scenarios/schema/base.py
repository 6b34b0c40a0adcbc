"""What all sections of a scenario share: how a setting is written down, and that nothing else is taken."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_LAYERS = 16
Precision = Literal["float32", "float16", "bfloat16", "int8"]


def setting(default: Any, meaning: str, *, unit: str = "dimensionless", **constraints: Any) -> Any:
    """A field with its meaning and unit; `constraints` are pydantic's (ge, gt, le, lt, min_length, …)."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **constraints)


def named(default: Any, meaning: str, ours: Iterable[str]) -> Any:
    """A field that holds a registered name; `ours` are those that come with the package."""
    return Field(default, description=meaning, json_schema_extra={"unit": "dimensionless", "examples": [*ours]})


class Section(BaseModel):
    """What all sections share: unknown keys are errors and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Item(Section):
    """What all items of lists share: a flag is no number."""

    @model_validator(mode="before")
    @classmethod
    def _no_flags(cls, data: Any) -> Any:
        # pydantic would take true for 1, and the check of `scenarios.loading` does not look into lists
        for name, field in cls.model_fields.items():
            if (
                isinstance(data, dict)
                and isinstance(data.get(name), bool)
                and bool not in (field.annotation, *get_args(field.annotation))
            ):
                raise ValueError(f"{name}: got {str(data[name]).lower()}; {field.description}")
        return data
