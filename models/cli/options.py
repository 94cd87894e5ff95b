"""Command-line options, generated from the dataclasses of the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from models.decoding.settings import UNSET, Search
from models.runs.config import PRESETS, TEXT_FILES, TrainConfig
from models.runs.defaults import choose
from models.runs.nested_dicts import flat_items, is_section, settable, variants
from models.system.errors import UserError
from models.text.size import TextSize

__all__ = ["RUN", "BeamOptions", "SearchOptions", "TrainOptions", "Whole", "given", "help_texts", "search_of"]

RUN = Group("Run", sort_key=0)
_TITLES = {
    "text": "Text",
    "tokenizer": "Tokenizer",
    "model": "Model",
    "sampling": "Scheduled sampling",
    "optim": "Optimizer",
}
_GROUPS = {section: Group(title, sort_key=i) for i, (section, title) in enumerate(_TITLES.items(), start=1)}


def _whole_number(kind: Any, tokens: Sequence[Token]) -> int:
    """Convert an option's value; cyclopts would round 0.5, as in --epochs 0.5, to 0. Errors: ValueError."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"a whole number is required, got {tokens[0].value}.") from None


Whole = Annotated[int, Parameter(converter=_whole_number)]


def _converter(kind: Any) -> Callable[[Any, Sequence[Token]], int] | None:
    return _whole_number if int in (kind, *get_args(kind)) else None


def help_texts(cls: type) -> dict[str, str]:
    """Return the help text of each field whose type has one: `Annotated[int, "text"]`."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated}


def _optional(kind: Any, prefix: str = "") -> type:
    """Return a dataclass whose fields are those of a section, at all depths None unless the user sets them.

    The command line thus knows which options were given; the TOML file and the presets supply the others. If the
    section is one of several dataclasses, it has the fields of all of them.
    """
    options: dict[str, tuple[str, Any, Any]] = {}
    for cls in variants(kind):
        texts, defaults = help_texts(cls), {f.name: f.default for f in dataclasses.fields(cls)}
        for name, inner in settable(cls).items():
            if name in options and name != "kind":
                continue
            if is_section(inner):
                inner, text = _optional(inner, f"{name}."), None
            else:
                text = f"{texts[name]} {_shown_default(prefix + name, defaults[name])}".strip()
            if name == "kind":
                names = [n for variant in variants(kind) for n in get_args(settable(variant)["kind"])]
                inner, text = Literal[tuple(names)], f"The architecture. [{names[0]}]"
            group, converter = _group(prefix + name), _converter(inner)
            parameter = Parameter(help=text, group=group, converter=converter, negative_iterable=())
            options[name] = (name, Annotated[inner | None, parameter], dataclasses.field(default=None))
    return _dataclass("Options", list(options.values()))


def _search_options(*names: str) -> type:
    """Return a dataclass of the named fields of `Search`."""
    texts, kinds, options = help_texts(Search), settable(Search), []
    for name in names:
        default = getattr(Search, name)
        shown = "" if isinstance(default, bool) else f" [{UNSET.get(name, default)}]"
        text, converter = texts[name] + shown, _converter(kinds[name])
        parameter = Parameter(help=text, show_default=False, negative="", converter=converter)
        options.append((name, Annotated[kinds[name], parameter], dataclasses.field(default=default)))
    return _dataclass("SearchOptions", options)


def _dataclass(name: str, fields: list[tuple[str, Any, Any]]) -> type:
    namespace = {"__module__": __name__}  # otherwise "types", which cyclopts takes for the module of a built-in class
    return dataclasses.make_dataclass(name, fields, kw_only=True, namespace=namespace)


def _group(key: str) -> Group:
    section = key.partition(".")[0]
    return _GROUPS.get("text" if section in ("data", *TEXT_FILES) else section, RUN)


_CHOSEN = {key for choice in choose(TextSize(), {}) for key in choice.settings}


def _shown_default(key: str, default: Any) -> str:
    """Return the default in brackets, or both defaults if those for the phrasebook and for the user's text differ."""
    book, own = (dict(flat_items(preset)).get(key, default) for preset in PRESETS.values())
    if key in _CHOSEN:
        return f"[phrasebook {book}; own text: by its size]"
    if book == own:
        return "" if book in ("", None) else f"[{book}]"
    return f"[phrasebook {book}; own text {own}]"


TrainOptions = Parameter(name="*")(_optional(TrainConfig))
SearchOptions = Parameter(name="*")(_search_options(*help_texts(Search)))
BeamOptions = Parameter(name="*")(_search_options("beam", "length_penalty", "max_length"))


def search_of(options: Any) -> Search:
    """Return the checked settings. options: `SearchOptions`, `BeamOptions`, or None if all are defaults."""
    search = Search(**vars(options)) if options else Search()
    search.check()
    return search


def given(options: Any) -> dict[str, Any]:
    """Return the options that the user set, as nested dicts. Errors: `UserError` for an empty value."""
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)} if options else {}
    values = {name: given(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}
    empty = [name for name, value in values.items() if value == ""]
    if empty:  # perhaps an unset variable of a shell script; it must not select the phrasebook
        raise UserError(f"train: --{empty[0].replace('_', '-')} needs a value; got an empty one; leave it out")
    return {name: value for name, value in values.items() if value is not None}
