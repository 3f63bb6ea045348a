"""Command-line options made from settings: the description, type and default of each stand once, under its field."""

from __future__ import annotations

import functools
import inspect
import operator
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from shortlm.completing import COMPLETERS, models
from shortlm.errors import RecipeError, shown
from shortlm.recipe import Settings, validated

# Short names of options: the same in every command that has the option, and no other option's.
SHORT = {
    "model": "-m", "text": "-t", "sequences": "-n", "criteria": "-c", "out": "-o", "force": "-f", "quiet": "-q",
    "help": "-h", "version": "-V",
}  # fmt: skip
UNIONS = (Union, types.UnionType)
BY_PLACE = "model_by_place"
LISTS = re.compile(r",(?!\s*[a-z_]+=)")  # a comma between criteria, not one between a criterion's options


def with_settings(
    *kinds: type[Settings], only_given: bool = False, omit: tuple[str, ...] = (), asks_model: str = "", **defaults: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one option per field of `kinds`; a name that several kinds have is one option for all.

    The command gets one keyword per kind (ModelSettings -> model_settings): the settings, or with
    `only_given` a dictionary of the options that were given, to be laid over a recipe. `defaults` replace
    the fields' own. With `asks_model`, which says what model is meant, the model is taken by position or as an option,
    and one has to be given.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def called(**values: Any) -> Any:
            if asks_model:
                values["model"] = the_model(values.pop(BY_PLACE), values["model"])
            settings = {_keyword(kind): _collected(kind, values, only_given, omit) for kind in kinds}
            return command(**{name: values[name] for name in own}, **settings)

        homes = {n: kind for kind in reversed(kinds) for n in kind.model_fields if n not in omit}
        names = [n for kind in kinds for n in kind.model_fields if homes.get(n) is kind]
        own_defaults = defaults | ({"model": None} if asks_model else {})
        made = [_parameter(name, homes[name], own_defaults.get(name, ...), only_given) for name in names]
        if asks_model:
            made = [_by_place(asks_model), *made]
        keywords = {_keyword(kind) for kind in kinds}
        parameters = inspect.signature(command, eval_str=True).parameters
        own = {n: p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for n, p in parameters.items() if n not in keywords}
        functools.update_wrapper(called, command)
        vars(called)["__signature__"] = inspect.Signature([*own.values(), *made])
        return called

    return decorate


def _by_place(what: str) -> inspect.Parameter:
    argument = Annotated[
        str | None, typer.Argument(metavar="MODEL", help=what, show_default=False, autocompletion=models)
    ]
    return inspect.Parameter(BY_PLACE, inspect.Parameter.KEYWORD_ONLY, annotation=argument, default=None)


def the_model(by_place: str | None, by_option: str | None) -> str:
    """The one that is given. Raises RecipeError where there is none, or two."""
    if by_place and by_option and by_place != by_option:
        raise RecipeError(f"the model is given twice: {shown(by_place)} and --model {shown(by_option)}")
    if not (by_place or by_option):
        raise RecipeError("which model? give a folder, a hub id, or 'embedded' (the tiny model inside)")
    return by_place or by_option or ""


def _keyword(kind: type[Settings]) -> str:
    return kind.__name__.removesuffix("Settings").lower() + "_settings"


def _parameter(name: str, kind: type[Settings], default: Any, only_given: bool) -> inspect.Parameter:
    field = kind.model_fields[name]
    annotation: Any = _plain(field.annotation)
    default = field.get_default() if default is ... else default
    option = typer.Option(
        *_flags(name, annotation, default or only_given, kind), help=field.description,
        show_default=_shown(default, only_given), rich_help_panel=kind.__name__.removesuffix("Settings"),
        autocompletion=COMPLETERS.get(f"{kind.__name__}.{name}", COMPLETERS.get(name)),
    )  # fmt: skip
    if get_origin(annotation) is list:
        annotation, default = str, ",".join(map(str, default))
    if only_given:
        annotation, default = annotation | None, None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[annotation, option], default=default
    )


def _plain(annotation: Any) -> Any:
    """`Size | None` as `str | None`: what a validator checks is checked by the settings."""
    parts = get_args(annotation)
    if get_origin(annotation) in UNIONS and len(set(parts) - {type(None)}) > 1:
        return str  # a number or a word
    if get_origin(annotation) is list or not any(get_origin(part) is Annotated for part in parts):
        return annotation
    return functools.reduce(operator.or_, (get_args(p)[0] if get_origin(p) is Annotated else p for p in parts))


def _shown(default: Any, only_given: bool) -> bool | str:
    """Where an option lies over a recipe its own default is None, and the field's is shown by hand."""
    if isinstance(default, str) and default.isspace():
        return repr(default)[1:-1]
    if not only_given:
        return True
    if default is None or default is False or default in ("", []):  # 0 says something
        return False
    return ",".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)


def _flags(name: str, annotation: Any, default: Any, kind: type[Settings]) -> list[str]:
    """The option's names, the old ones of a setting last."""
    names = [kind.option_names.get(name, name), *(old for old, new in kind.old_names.items() if new == name)]
    flags = [each.replace("_", "-") for each in names]
    if annotation is bool and default:
        return [f"--{flag}/--no-{flag}" for flag in flags]
    return [*(f"--{flag}" for flag in flags), *([SHORT[name]] if name in SHORT else [])]


def _collected(kind: type[Settings], values: dict[str, Any], only_given: bool, omit: tuple[str, ...]) -> Any:
    given = {name: values[name] for name in kind.model_fields if name in values and name not in omit}
    if only_given:
        given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if get_origin(kind.model_fields[name].annotation) is list and value is not None:
            given[name] = [part.strip() for part in LISTS.split(value) if part.strip()]
    settings = validated(kind, given)
    return given if only_given else settings
