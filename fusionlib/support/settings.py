"""Frozen dataclasses of settings: a copy of a tree of them with one changed, and refusal of what cannot be set."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass, replace
from functools import cache
from types import UnionType
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from fusionlib.support.files import InputError

Config = TypeVar("Config")
FINITE = sys.float_info.max


def check(config: object, *names: str, least: float = 0, most: float = FINITE) -> None:
    """Refuse settings of another type, and those that are not from `least` to `most`, as NaN never is.

    Args:
        config: a dataclass that is being made.
        names: of settings that are numbers, or tuples of one or more of them; None stands for "not set" and passes.
        least, most: the range; infinity is in it only where `most` is.

    Raises:
        InputError: one is out of that range, or of another type than the dataclass says.
    """
    for name in names:
        value = getattr(config, name)
        check_type(config, name, value)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if value == () or not all(least <= number <= most for number in numbers):  # NaN is in no range
            limit = f" and {most:g} or less" if most < FINITE else ""
            what = "finite numbers" if isinstance(value, tuple) else "a finite number"
            text = value if isinstance(value, tuple) else f"{value:g}"
            raise InputError(f"{name} of {type(config).__name__} is {text}; give {what} of {least:g} or more{limit}.")


def check_choice(config: object, name: str, *choices: str) -> None:
    """Refuse a setting, or a part of a tuple, that is none of the choices.

    Raises:
        InputError: it is something else.
    """
    value = getattr(config, name)
    for each in value if isinstance(value, tuple) else (value,):
        if each not in choices:
            known = " or ".join(map(repr, choices))
            raise InputError(f"{name} of {type(config).__name__} cannot be {each!r}; choose {known}.")


def check_type(config: object, name: str, value: object) -> None:
    """InputError if a value is of another type than that of the setting; an int may stand for a float."""
    if not _fits(value, hint := _hints(type(config))[name]):
        wanted = hint.__name__ if isinstance(hint, type) and not get_args(hint) else hint
        raise InputError(f"{name} of {type(config).__name__} must be {wanted}, not {value!r}.")


def changed(config: Config, path: str, value: object) -> Config:
    """A copy of a tree of frozen dataclasses with the setting at a dotted path replaced.

    Raises:
        InputError: there is no such setting, or the value is of another type than the setting; the message says which
            there are, or which type it has.
    """
    name, _, rest = path.partition(".")
    if not is_dataclass(config) or name not in (known := [each.name for each in fields(config)]):
        place = type(config).__name__
        advice = f"; it has {', '.join(known)}" if is_dataclass(config) else ""
        raise InputError(f"{place} has no setting {name!r}{advice}.")
    if not rest:
        check_type(config, name, value)
    inner = changed(getattr(config, name), rest, value) if rest else value
    return replace(config, **{name: inner})


@cache
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind)


def _fits(value: object, hint: object) -> bool:
    """Whether a value is of a type as the settings use them; an int counts as a float, and a bool as neither."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, hint)
