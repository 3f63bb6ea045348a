"""What all settings have in common: unknown keys refused with the nearest name, mistakes told in one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from shortlm.documents import MOST_YAML, parse_yaml, read_bytes
from shortlm.errors import RecipeError, did_you_mean, shortened, shown
from shortlm.recipe.shipped import recipe_file
from shortlm.sizes import byte_size, quantity

Plain: TypeAlias = Mapping[str, object] | str | PathLike[str]
S = TypeVar("S", bound="Settings")


def _checked_size(text: str) -> str:
    byte_size(text)
    return text


def _checked_count(text: str) -> str:
    quantity(text)
    return text


Size = Annotated[str, AfterValidator(_checked_size)]
Count = Annotated[str, AfterValidator(_checked_count)]


class Settings(BaseModel):
    """A stage's settings: unknown keys refused, values fixed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    option_names: ClassVar[dict[str, str]] = {}  # of settings that the command line calls otherwise
    named_by: ClassVar[str | None] = None  # the setting that a string alone stands for
    old_names: ClassVar[dict[str, str]] = {}  # of settings that have another name now, which still work

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        if not isinstance(values, dict) or cls.old_names.keys().isdisjoint(values):
            return values
        for old, new in cls.old_names.items():
            if old in values and new in values:
                raise ValueError(f"'{old}' is the old name of '{new}'; give one of them")
        return {cls.old_names.get(name, name): value for name, value in values.items()}


def settings_of(kind: type[S], value: S | Plain | None) -> S:
    """Settings as people give them in Python: themselves, a dictionary of some, or the name of a model or a text.

    Raises RecipeError naming what is unknown or out of range.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, (str, PathLike)) and kind.named_by:
        return validated(kind, {kind.named_by: fspath(value)}, kind.__name__)
    if value is None or isinstance(value, Mapping):
        return validated(kind, dict(value or {}), kind.__name__)
    what = "settings, a dictionary of them or a name" if kind.named_by else "settings or a dictionary of them"
    raise RecipeError(f"{kind.__name__}: {what} is needed (got {shown(value)})")


def not_default(*settings: Settings, told: Collection[str] = ()) -> dict[str, str]:
    """The values that are not at their defaults, as one writes them on the command line, but those already `told`."""
    found = {}
    for part in settings:
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            if name not in told and value is not None and value != field.get_default():
                option = part.option_names.get(name, name)
                found[option] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The settings in a YAML file, or in the recipe of that name in the package. Raises RecipeError naming the file."""
    path = recipe_file(path)
    try:
        text = read_bytes(path, RecipeError, MOST_YAML).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text (byte {error.start}); convert it first") from error
    content = parse_yaml(text, str(path), RecipeError)
    if content is not None and not isinstance(content, dict):
        raise RecipeError(f"{path}: holds a {type(content).__name__}, settings (key: value) are needed")
    return content or {}


def validated(kind: type[Settings], values: dict[str, Any], where: str = "") -> Any:
    """`kind` made from `values`; a mistake becomes one RecipeError line that names the field, or its option."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = [str(part) for part in first["loc"]]
        option = next((part for part in reversed(first["loc"]) if isinstance(part, str)), "settings")
        option = kind.option_names.get(option, option)
        place = (
            f"{where}: {shortened('.'.join(names), 100)}" if where else "--" + shortened(option.replace("_", "-"), 100)
        )
        raise RecipeError(f"{place}: {_reason(kind, first)}") from error


def _reason(kind: type[BaseModel], error: Any) -> str:
    if error["type"] != "extra_forbidden":
        message = shortened(error["msg"].removeprefix("Value error, "), 300)
        return f"{message[:1].lower()}{message[1:]} (got {shown(error['input'])})"
    fields: Any = kind
    for part in error["loc"][:-1]:
        fields = _settings_in(fields if isinstance(part, int) else _fields(fields)[part].annotation)
    known = _fields(fields)
    return f"unknown setting; {did_you_mean(str(error['loc'][-1]), known)}"


def _settings_in(annotation: Any) -> Any:
    """The settings that a field holds, alone, in a list or as one of several things."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((found for part in get_args(annotation) if (found := _settings_in(part))), None)


def _fields(kind: Any) -> dict[str, Any]:
    return getattr(kind, "model_fields", {})


def to_yaml(settings: Settings) -> str:
    """The settings with every setting written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
