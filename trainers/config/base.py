"""Base of all configuration: frozen models, the ignored label, ranges of numbers."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

IGNORE = 255
"""The one label of pixels that take no part in anything."""

SMALLEST_VIEW = 16
"""Least height and width, in pixels, of what a network sees: a cell of the coarsest map of features."""

LARGEST = 2**53
"""Whole numbers up to here are exact as floats, as which they are reported."""

Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Frozen(BaseModel):
    """Base of all configuration: immutable, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _whole_numbers_are_exact(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and value > LARGEST:
                raise ValueError(f"{name} must be at most {LARGEST}, got {value}: lower it")
        return self


def added(default: Any, **limits: Any) -> Any:
    """Return a field that came after the first version: at its default it is no part of the hash.

    Configs, checkpoints and runs of before thus keep the hash that they had without it.
    """
    return Field(default, json_schema_extra={"added": True}, **limits)


def hashed(config: BaseModel) -> dict[str, Any]:
    """Return what the hash of a config is made of: its JSON-able values, less `added` fields at their default."""
    values = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value, extra = getattr(config, name), field.json_schema_extra
        if isinstance(extra, dict) and extra.get("added") and value == field.default:
            del values[name]
        elif isinstance(value, BaseModel):
            values[name] = hashed(value)
    return values
