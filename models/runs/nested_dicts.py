"""Conversion between nested dataclasses and the nested dicts of TOML and JSON."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from models.runs.other_names import our_key
from models.system.errors import UserError
from models.system.limits import LARGEST
from tensorlib.messages import shown

__all__ = [
    "checked", "flat_items", "from_dict", "is_section", "nested", "section", "settable", "to_dict", "variant_of",
    "variants",
]  # fmt: skip

_SET_BY_TOKENIZER = ("source_vocabulary", "target_vocabulary", "vocabulary")  # of a model; only models have a kind

T = TypeVar("T")


def settable(cls: type) -> dict[str, Any]:
    """Return the type of each field that a user may set, by name."""
    fields = _all_fields(cls)
    return {name: kind for name, kind in fields.items() if "kind" not in fields or name not in _SET_BY_TOKENIZER}


@cache
def _all_fields(cls: type) -> Mapping[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def is_section(kind: Any) -> TypeGuard[type]:
    """Return whether a field's type is a section of settings: a dataclass, or a union of several (see `variant_of`)."""
    return all(map(dataclasses.is_dataclass, variants(kind)))


def variants(kind: Any) -> tuple[type, ...]:
    """Return the dataclasses of which a section may be one."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def variant_of(kind: Any, values: Mapping[str, Any], where: str = "config", key: str = "model") -> type:
    """Return the dataclass of a union that the section's key `kind` names, by default the first.

    Errors: `UserError` naming `where` and the key, for an unknown kind.
    """
    known = {name: cls for cls in variants(kind) for name in get_args(_all_fields(cls).get("kind"))}
    name = values.get("kind", next(iter(known), None))
    if len(variants(kind)) == 1:
        return variants(kind)[0]
    if not isinstance(name, str) or name not in known:
        raise UserError(f"{where}: {key}.kind must be one of {', '.join(known)}, got {shown(name)}")
    return known[name]


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as nested dicts; tuples become lists, and values of None are left out."""
    values = {}
    for name in settable(type(config)):
        value = getattr(config, name)
        if value is None:  # TOML cannot express None
            continue
        if is_section(type(value)):
            value = to_dict(value)
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


def from_dict(
    cls: type[T],
    values: Mapping[str, Any],
    where: str,
    prefix: str = "",
    root: type | None = None,
    every_field: bool = False,
) -> T:
    """Return an instance of `cls`, with all dataclasses nested in it, built from nested dicts.

    With `every_field`, keys may also be fields that no user sets. Errors: `UserError` naming `where` and the dotted
    key, for an unknown key or a value of the wrong type.
    """
    root = root or cls
    kind: Any = cls  # mypy does not know that a class variable of a type variable is hashable
    types = _all_fields(kind) if every_field else settable(cls)
    for key in values:
        if key not in types:
            name = key if len(key) <= 80 else f"{key[:60]}..."
            if prefix + key in _dotted_keys(root):
                raise UserError(f"{where}: {_other_kind(key, prefix, cls, root)}; valid keys: {', '.join(types)}")
            raise UserError(f"{where}: unknown key {prefix}{name}; {_suggestion(name, types, prefix, root)}")
    built: dict[str, Any] = {}
    for key, value in values.items():
        if is_section(types[key]):
            inner = section(value, where, prefix + key)
            variant = variant_of(types[key], inner, where, prefix + key)
            built[key] = from_dict(variant, inner, where, f"{prefix}{key}.", root)
        else:
            built[key] = checked(types[key], value, where, prefix + key)
    return cls(**built)


def flat_items(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting, at every depth of nested sections."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat_items(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested dict with these dotted keys: the inverse of `flat_items`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        section = result
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return result


def _other_kind(key: str, prefix: str, cls: type, root: type) -> str:
    """Return which kinds of a section have this key, which `cls` lacks: one of the kinds that the section may be."""
    section = settable(root)[prefix.rstrip(".")]
    having = [kind for one in variants(section) if key in settable(one) for kind in get_args(settable(one)["kind"])]
    own = " or ".join(get_args(settable(cls)["kind"]))
    return f"{prefix}{key} is a setting of {prefix}kind {' or '.join(having)}, not of {own}"


def _suggestion(key: str, types: Mapping[str, Any], prefix: str, root: type) -> str:
    name = key.replace("-", "_")  # the command line's spelling
    near = [prefix + match for match in difflib.get_close_matches(name, types, 1)]
    near = near or [dotted for dotted in _dotted_keys(root) if dotted.endswith("." + name)]
    meant = near[0] if near else our_key(name, list(_dotted_keys(root)))
    return f"did you mean {meant}?" if meant else f"valid keys: {', '.join(types)}"


def _dotted_keys(cls: type, prefix: str = "") -> Iterator[str]:
    for key, kind in settable(cls).items():
        if is_section(kind):
            for variant in variants(kind):
                yield from _dotted_keys(variant, f"{prefix}{key}.")
        else:
            yield prefix + key


def section(value: Any, where: str, key: str) -> Mapping[str, Any]:
    """Return the value if it is a dict. Errors: `UserError` naming `where` and the key."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {key} must be a section of keys, got {shown(value)}; write [{key}]")
    return value


def checked(kind: Any, value: Any, where: str, key: str) -> Any:
    """Return the value as `kind` requires: an int may become a float, a list a tuple; no other value is converted.

    Errors: `UserError` naming `where` and the key, for a value of the wrong type.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        valid, required = value in args, "one of " + ", ".join(map(str, args))
    elif origin is tuple:
        valid, required = isinstance(value, list | tuple) and len(value) == len(args), f"a list of {len(args)} numbers"
        if valid:
            return tuple(checked(arg, item, where, key) for arg, item in zip(args, value, strict=True))
    elif origin is list:
        valid, required = isinstance(value, list), "a list"
        if valid:
            return [checked(args[0], item, where, key) for item in value]
    elif origin in (Union, UnionType):
        return None if value is None else checked(args[0], value, where, key)  # `float | None`, the only union
    elif kind is float:
        valid, required = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        if valid and not (abs(value) <= LARGEST if isinstance(value, int) else math.isfinite(value)):
            valid, required = False, f"at most {LARGEST}" if isinstance(value, int) else "a finite number"
        elif valid and float(value) != value:
            valid, required = False, "a number that float64 holds exactly"
        value = float(value) if valid else value
    else:
        valid = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        required = {int: "a whole number", str: "text in quotes", bool: "true or false"}.get(kind, kind.__name__)
    if not valid:
        raise UserError(f"{where}: {key} must be {required}, got {shown(value)}")
    return value
