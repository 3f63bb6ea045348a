"""The little grammar of things with options: name, name:preset, name:key=value,key=value.

Criteria and ways of choosing are written so. What an option may be follows from its default, or from what it allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shortlm.errors import ShortLMError, did_you_mean, shown

NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Options:
    """The options that something has: their defaults, presets of several, the words and the range that they allow."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_spec(
    spec: str, what: str, known: Mapping[str, Options], error: type[ShortLMError]
) -> tuple[str, dict[str, Any]]:
    """The name and all its options. `what` is said in errors: criterion, method.

    Raises `error`, naming the nearest known name.
    """
    name, _, rest = spec.partition(":")
    if name not in known:
        raise error(f"unknown {what} {shown(name)}; {did_you_mean(name, known)}")
    options = known[name]
    if not rest:
        return name, dict(options.defaults)
    if "=" in rest:
        return name, {**options.defaults, **dict(_option(what, spec, part, options, error) for part in rest.split(","))}
    if rest not in options.presets:
        names = did_you_mean(rest, options.presets) if options.presets else "it has none"
        raise error(f"{what} {shown(name)}: unknown preset {shown(rest)}; {names}")
    return name, {**options.defaults, **options.presets[rest]}


def _option(what: str, spec: str, part: str, options: Options, error: type[ShortLMError]) -> tuple[str, Any]:
    key, _, text = part.strip().partition("=")
    where = f"{what} {shown(spec)}: "
    if key not in options.defaults:
        known = did_you_mean(key, options.defaults) if options.defaults else "it has none"
        raise error(f"{where}unknown option {shown(key)}; {known}")
    value: Any = {"true": True, "false": False}.get(text, int(text) if NUMBER.fullmatch(text) else text)
    allowed = options.choices.get(key, (True, False) if isinstance(options.defaults[key], bool) else None)
    if allowed and not any(value is known or value == known for known in allowed if type(value) is type(known)):
        raise error(f"{where}{key} is {shown(text)}; known: {', '.join(map(_written, allowed))}")
    if not allowed and (isinstance(value, (str, bool))):
        raise error(f"{where}{key} is {shown(text)}; a whole number is needed")
    low, high = options.limits.get(key, (None, None))
    if low is not None and not low <= value <= high:
        raise error(f"{where}{key} is {value}; at least {low} is needed, at most {high:,}")
    return key, value


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
