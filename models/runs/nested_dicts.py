"""Between nested dicts, as TOML has them, and dataclasses in dataclasses: what a config is made of."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from models.system.errors import UserError

__all__ = ["LARGEST", "build", "leaves", "settable", "to_dict"]

LARGEST = 2**63 - 1  # what TOML promises to hold, and NumPy too
_FROM_TOKENIZER = ("source_vocabulary", "target_vocabulary")  # no one sets them: the tokenizer says how large it is

T = TypeVar("T")


def settable(cls: type) -> dict[str, Any]:
    """Return the type of each field that a user may set, by name."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.name not in _FROM_TOKENIZER}


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as nested dicts of all that is set, as TOML and JSON have it (lists, no tuples, no None)."""
    values = {}
    for name in settable(type(config)):
        value = getattr(config, name)
        if value is None:  # TOML has no word for it
            continue
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


def build(cls: type[T], values: Mapping[str, Any], where: str, prefix: str = "", root: type | None = None) -> T:
    """Make a dataclass, and those in it, from nested dicts.

    Errors: `UserError` naming where, and the key, for a key that there isn't or a value of another type.
    """
    root = root or cls
    types = settable(cls)
    for key in values:
        if key not in types:
            raise UserError(f"{where}: unknown key {prefix}{key}; {_suggestion(key, types, prefix, root)}")
    built: dict[str, Any] = {
        key: build(types[key], _table(value, where, prefix + key), where, f"{prefix}{key}.", root)
        if dataclasses.is_dataclass(types[key])
        else _value(types[key], value, where, prefix + key)
        for key, value in values.items()
    }
    return cls(**built)


def _suggestion(key: str, types: Mapping[str, Any], prefix: str, root: type) -> str:
    name = key.replace("-", "_")  # as on the command line
    near = [prefix + match for match in difflib.get_close_matches(name, types, 1)]
    near = near or [leaf for leaf in _names(root) if leaf.endswith("." + name)]
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(types)}"


def _names(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of everything that a user may set."""
    for key, kind in settable(cls).items():
        yield from _names(kind, f"{prefix}{key}.") if dataclasses.is_dataclass(kind) else [prefix + key]


def _table(value: Any, where: str, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {key} must be a section with keys of its own, got {value!r}; write [{key}]")
    return value


def _value(wanted: Any, value: Any, where: str, key: str) -> Any:
    """Return the value as its type has it: an int counts as float, a list as tuple; nothing else is converted."""
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        good, name = value in args, "one of " + ", ".join(map(str, args))
    elif origin is tuple:
        good, name = isinstance(value, list | tuple) and len(value) == len(args), f"a list of {len(args)} numbers"
        if good:
            return tuple(_value(arg, item, where, key) for arg, item in zip(args, value, strict=True))
    elif origin in (Union, UnionType):
        return None if value is None else _value(args[0], value, where, key)  # `float | None`, the only kind
    elif wanted is float:
        good, name = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        if good and not (abs(value) <= LARGEST if isinstance(value, int) else math.isfinite(value)):
            good, name = False, f"at most {LARGEST}" if isinstance(value, int) else "a finite number"
        value = float(value) if good else value
    else:
        good = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
        name = {int: "a whole number", str: "text in quotes", bool: "true or false"}.get(wanted, wanted.__name__)
    if not good:
        raise UserError(f"{where}: {key} must be {name}, got {value!r}")
    return value


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of everything that is no section."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
