"""Pages of the site made of docstrings: every op with its derivation, and all public names of the three packages."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin

import models
import nn
import tensorlib as tl

ROOMS = {  # the title of each room's page
    "tensor": "Tensor", "engine": "Recording and backward", "transforms": "Derivatives and checks",
    "graphs": "Graphs and pictures", "debugging": "Debugging", "exchange": "Exchange and files",
    "arrays": "Backends and random numbers", "kernels": "Kernels",
}  # fmt: skip
FAMILIES = {  # the titles of families of ops that their file's name does not give
    "add_norm": "Add and normalize", "crossentropy": "Cross-entropy", "einsum": "Einstein sums",
    "feed_forward": "Feed-forward", "linalg": "Matrices", "linear_cross_entropy": "Linear and cross-entropy",
    "multi_head_attention": "Multi-head attention", "reduce": "Sums and means", "shape": "Shapes",
}  # fmt: skip
SUBMODULES = ("optim", "schedules", "init", "functional", "averaging")
NOT_PUBLIC = ("TYPE_CHECKING", "register_kernels")


# ---- docstrings as Markdown ------------------------------------------------------------------------------------------


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown: prose as prose; examples, formulas and what is indented as blocks."""
    return "\n\n".join(block(part) for part in re.split(r"\n[ \t]*\n(?! )", docstring.strip("\n")) if part.strip())


def block(part: str) -> str:
    """Return one paragraph of a docstring, with what is indented below it, as Markdown."""
    lines = part.splitlines()
    if lines[0].startswith(">>>"):
        return fenced(part, "pycon")
    if re.fullmatch(r"[A-Z]\w+:", lines[0]) and len(lines) > 1:
        return f"**{lines[0]}**\n\n{arguments(lines[1:])}"
    if re.match(r"[-*] |\d\. ", lines[0]):
        return prose(part)
    first = next((i for i, line in enumerate(lines) if line.startswith(("    ", ">>>"))), len(lines))
    if is_formula(part) and first == len(lines):
        return fenced(re.sub(r"(?<=.{90})\n", " ", "\n".join(lines)), "text")  # the page wraps lines
    if is_formula(part) or first == 0:
        return fenced(part, "text")
    rest = "\n".join(lines[first:])
    above = re.sub(
        r"^(Keeps|Kernels:)", r"\n\1", prose("\n".join(lines[:first]).replace("::", ":")), flags=re.MULTILINE
    )
    return above.strip() + ("\n\n" + fenced(rest, "pycon" if ">>>" in rest else "text") if rest.strip() else "")


def is_formula(part: str) -> bool:
    """Return whether a paragraph states a formula or its gradient."""
    return "=>" in part or bool(re.match(r"(d?[\w\[\], ()/^]{1,30}) (=|<-) ", part))


def fenced(text: str, language: str) -> str:
    """Return a fenced block of code."""
    return f"```{language}\n{inspect.cleandoc(text) if text.startswith(' ') else text}\n```"


def arguments(lines: list[str]) -> str:
    """Return the lines below "Args:" as a list."""
    text = inspect.cleandoc("\n".join(lines))
    entries = re.split(r"\n(?=\S)", text)
    listed = []
    for entry in entries:
        name, colon, rest = entry.partition(":")
        rest = " ".join(rest.split())
        named = colon and re.fullmatch(r"[\w*, .]+", name)
        listed.append(f"- `{name}`: {prose(rest)}" if named else f"- {prose(' '.join(entry.split()))}")
    return "\n".join(listed)


def prose(text: str) -> str:
    """Return text in which nothing outside of backticks has a meaning in Markdown or HTML."""
    parts = re.split(r"(``[^`]+``|`[^`\n]+`)", text)
    return "".join(part if i % 2 else escaped(part) for i, part in enumerate(parts))


def escaped(text: str) -> str:
    """Return text without backticks in which nothing but a word in asterisks has a meaning."""
    text = re.sub(r"([\\*_\[\]#|~])", r"\\\1", text)
    text = re.sub(r"\\\*(\w+)\\\*", r"*\1*", text)  # a word in asterisks is emphasized
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def summary(value: Any) -> str:
    """Return the first sentence of a docstring, as Markdown for a cell of a table."""
    first = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    sentence = re.match(r".*?[.:](?= |$)", first)
    return prose(re.sub(":$", ".", sentence[0] if sentence else first))


# ---- entries ---------------------------------------------------------------------------------------------------------


def signature(name: str, value: Any) -> str:
    """Return the signature of a function or class, on several lines if it is long; "" if there is none."""
    if getattr(value, "_is_protocol", False):
        return ""  # nobody calls it
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    given = [p.replace(annotation=plain(p.annotation)) for p in found.parameters.values()]
    shown = [str(p) for p in given if p.name not in ("self", "cls")]
    kinds = [p.kind for p in found.parameters.values() if p.name not in ("self", "cls")]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    shown = [re.sub(r"^([*\w]+): (['\"])(.*?)\2(?= =|$)", r"\1: \3", text) for text in shown]
    arrow = "" if inspect.isclass(value) else f" -> {found.return_annotation}"
    arrow = arrow if found.return_annotation is not inspect.Signature.empty else ""
    line = f"{name}({', '.join(shown)}){arrow}".replace("tl.Tensor", "Tensor")
    return line if len(line) <= 90 else f"{name}(\n    " + ",\n    ".join(shown) + f",\n){arrow}"


def plain(annotation: Any) -> Any:
    """Return an annotation without the help text that belongs to it."""
    if isinstance(annotation, str) and annotation.startswith("Annotated["):
        parsed: Any = ast.parse(annotation, mode="eval").body
        return ast.unparse(parsed.slice.elts[0])
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def source_link(value: Any, root: Path, depth: int) -> str:
    """Return a link to the line of the source, or "" for what has none."""
    try:
        inner = inspect.unwrap(value)
        file, line = inspect.getsourcefile(inner), inspect.getsourcelines(inner)[1]
    except (TypeError, OSError):
        return ""
    path = Path(file or "").resolve()
    if not path.is_relative_to(root):
        return ""
    name = path.relative_to(root).as_posix()
    return f"Source: [{name}, line {line}]({'../' * depth}{name}#L{line})"


def entry(name: str, value: Any, root: Path, level: int = 2) -> str:
    """Return heading, signature, docstring and source of a public name, and of the methods of a class."""
    parts = [f"{'#' * level} {escaped(name)}"]
    call = signature(name, value) if callable(value) else ""
    if call:
        parts.append(fenced(call, "python"))
    documented = callable(value) or isinstance(value, property)
    parts.append(markdown(inspect.getdoc(value) or "") if documented else f"A constant or type: `{value}`")
    if level == 2:
        parts.append(source_link(value, root, 2))
    if inspect.isclass(value):
        parts += methods(name, value, root)
    return "\n\n".join(part for part in parts if part)


def methods(name: str, cls: type, root: Path) -> list[str]:
    """Return entries of the public methods and properties that a class defines; those that are ops, as one list."""
    own = {key: value for key, value in vars(cls).items() if not key.startswith("_")}
    ops = {key: op for key, value in own.items() if (op := op_behind(value))}
    rest = {k: v for k, v in own.items() if k not in ops and (callable(getattr(cls, k)) or isinstance(v, property))}
    rest = {key: value for key, value in rest.items() if inspect.getdoc(value) and not inspect.isclass(value)}
    listed = [f"[{key}](../ops/{family(op)}.md#tl{op.__name__})" for key, op in sorted(ops.items())]
    entries = [
        entry(f"{name}.{key}", value if isinstance(value, property) else getattr(cls, key), root, 3)
        for key, value in rest.items()
    ]
    return ["**Methods that are ops:** " + ", ".join(listed)] * bool(listed) + entries


def op_behind(value: Any) -> Any:
    """Return the public op that a method of Tensor is, or None."""
    name = getattr(value, "__name__", "")
    return value if getattr(tl, name, None) is value and is_op(value) else None


def is_op(value: Any) -> bool:
    """Return whether a function is an op, or made of ops alone."""
    return str(getattr(value, "__module__", "")).startswith("tensorlib.ops.")


def family(op: Any) -> str:
    """Return the name of the file that defines an op."""
    return str(op.__module__).rpartition(".")[2]


# ---- pages -----------------------------------------------------------------------------------------------------------


def public_names() -> dict[str, Any]:
    """Return what tensorlib exports, by name."""
    found = {name: value for name, value in vars(tl).items() if not name.startswith("_") and name not in NOT_PUBLIC}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def page(heading: str, about: str, package: str, values: dict[str, Any], root: Path) -> str:
    """Return a page with an entry for each value, by its name in the package."""
    parts = [f"# {heading}", markdown(about)]
    return "\n\n".join([*parts, *(entry(f"{package}.{name}", value, root) for name, value in values.items())]) + "\n"


def op_pages(root: Path) -> dict[str, str]:
    """Return a page for each family of ops, and the index of all ops."""
    families: dict[str, dict[str, Any]] = {}
    for name, value in sorted(public_names().items()):
        if is_op(value):
            families.setdefault(family(value), {})[name] = value
    rows = [
        "# Every op",
        "",
        "Each op, with the derivation of its gradient as the docstring in its source states it.",
        "",
    ]
    rows += ["| op | what it does |", "|---|---|"]
    pages = {"ops/index.md": ""}
    for room in sorted(families):
        about = inspect.getdoc(import_module(f"tensorlib.ops.{room}")) or ""
        pages[f"ops/{room}.md"] = page(
            FAMILIES.get(room, room.replace("_", " ").capitalize()), about, "tl", families[room], root
        )
    every = {name: value for values in families.values() for name, value in values.items()}
    rows += [f"| [tl.{k}]({family(v)}.md#tl{k}) | {summary(v)} |" for k, v in sorted(every.items())]
    return {**pages, "ops/index.md": "\n".join(rows) + "\n"}


def api_pages(root: Path) -> dict[str, str]:
    """Return the pages of what is not an op: a page for each room of tensorlib, then nn and models."""
    rest = {name: value for name, value in public_names().items() if not is_op(value)}
    pages = {}
    for room, heading in ROOMS.items():
        values = {k: v for k, v in rest.items() if f"{v.__module__}.".startswith(f"tensorlib.{room}.")}
        about = inspect.getdoc(import_module(f"tensorlib.{room}")) or ""
        pages[f"api/{room}.md"] = page(f"tl: {heading}", about, "tl", values, root)
    exported = {name: getattr(nn, name) for name in nn.__all__}
    layers = {name: value for name, value in exported.items() if not isinstance(value, ModuleType)}
    pages["api/nn.md"] = page("nn: Layers", nn.__doc__ or "", "nn", layers, root)
    for name in SUBMODULES:
        module = exported[name]
        values = {key: getattr(module, key) for key in module.__all__}
        pages[f"api/{name}.md"] = page(f"nn.{name}", inspect.getdoc(module) or "", f"nn.{name}", values, root)
    values = {name: getattr(models, name) for name in models.__all__}
    pages["api/models.md"] = page("models", models.__doc__ or "", "models", values, root)
    return {"api/index.md": api_index(pages), **pages}


def api_index(pages: dict[str, str]) -> str:
    """Return the page that lists all other pages of the API and what they have."""
    lines = ["# Every name", "", "All public names; those of ops have [pages with derivations](../ops/index.md).", ""]
    for name, text in pages.items():
        heading, short = text.partition("\n")[0].lstrip("# "), name.removeprefix("api/")
        lines += [f"## {heading}", ""]
        for found in re.findall(r"^## (.*)$", text, re.MULTILINE):
            plain = found.replace("\\", "")
            anchor = re.sub(r"[^\w-]", "", plain).lower()
            lines.append(f"- [{found}]({short}#{anchor})")
        lines.append("")
    return "\n".join(lines)


def reference_pages(root: Path) -> dict[str, str]:
    """Return the text of each page of the reference by its path in the site."""
    return {**op_pages(root), **api_pages(root)}
