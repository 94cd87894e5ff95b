"""Build the site from docs/: ``python docs/build.py``, after ``pip install -e ".[docs]"``; no network is needed.

The pages of docs/ become the site, with files outside of docs/ that they link to, and with the reference, which is
made of the docstrings. The Markdown of the site is in FOLDER/source, the site itself in FOLDER/html.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import tomli_w
from reference import reference_pages

ROOT = Path(__file__).parents[1]
OUTSIDE = "repository"  # the site's folder of files that are not in docs/
LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".cu": "cpp", ".cuh": "cpp", ".html": "html"}
PICTURES = (".svg", ".png", ".jpg", ".gif")
NOT_PAGES = ("build.py", "reference.py", "zensical.toml")
ELSEWHERE = "https://unpkg.com/iframe-worker/shim"
LINK = re.compile(r'(\]\(|\b(?:src|href)=")([^)"\s]+)([)"])')
GUIDES = [
    ("Training", "training.md"), ("Reliability", "reliability.md"), ("Decoding", "decoding.md"),
    ("Language models", "language.md"), ("Embeddings", "embeddings.md"), ("Contrastive learning", "contrastive.md"),
    ("GPUs", "gpu.md"), ("Performance", "performance.md"), ("Kernels", "kernels.md"), ("Captured steps", "capture.md"),
    ("Graphs and gradients", "engine.md"),
    ("Causality", "causality.md"), ("Experiments", "experiments.md"),
]  # fmt: skip


# ---- Markdown as the site's generator reads it -----------------------------------------------------------------------


def for_generator(text: str) -> str:
    """Return the same Markdown, indented and spaced as Python-Markdown needs it.

    It wants four spaces where code hosts take the width of the list's marker, and an empty line before a list. In a
    table it shows the backslash of a bar within code.
    """
    lines: list[str] = []
    levels: list[
        tuple[int, int]
    ] = []  # of the lists around a line: how far the text of an item is indented, and will be
    fence = ""
    for line in text.splitlines():
        body = line.lstrip(" ")
        indent = len(line) - len(body)
        if not body:
            lines.append("")
            continue
        while levels and indent < levels[-1][0] and not fence:
            levels.pop()
        old, new = levels[-1] if levels else (0, 0)
        item = re.match(r"(?:[-*+]|\d+[.)]) +(?=\S)", body) if not fence and indent - old < 4 else None
        if item and lines and lines[-1] and not levels and re.match(r"\d", body) and not re.match(r"1\D", body):
            item = None  # only a list that begins with 1 interrupts a paragraph
        if item and not levels and lines and lines[-1] and not re.match(r" *([-*+]|\d+\.) |    ", lines[-1]):
            lines.append("")
        if not item and body.startswith("|"):
            body = re.sub(r"`[^`]*`", lambda code: code[0].replace(r"\|", "|"), body)
        lines.append(" " * (new + max(indent - old, 0)) + body)
        if item:
            levels.append((indent + len(item[0]), new + 4))
            lines[-1] = " " * new + body
        opened = re.match(r"`{3,}|~{3,}", body)
        if opened:
            fence = "" if fence and body.startswith(fence) else fence or opened[0]
    return "\n".join(lines) + "\n"


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return Markdown after `change` of all that is neither in a fenced block nor in inline code."""
    parts = re.split(r"(^ *```.*?^ *```|`[^`\n]+`(?!\]))", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


# ---- links -----------------------------------------------------------------------------------------------------------


def site_path(path: str) -> str:
    """Return where the site has a file or folder of the repository, both as relative paths with slashes."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{OUTSIDE}/{path}/index.md"
    if path.endswith("README.md"):  # as README.md it would be the first page of its folder
        return f"{OUTSIDE}/{path.removesuffix('README.md')}about.md"
    return f"{OUTSIDE}/{path}" if path.endswith((".md", *PICTURES)) else f"{OUTSIDE}/{path}.md"


def relinked(text: str, page: str, linked: list[str], generated: Iterable[str] = ()) -> str:
    """Return a page of the repository with links to where the site has the files, which are added to `linked`.

    Raises SystemExit for a link to a file that does not exist.
    """

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if "://" in target or target.startswith("mailto:") or not target:
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(page), target)).replace(os.sep, "/")
        if path.startswith("docs/") and path.removeprefix("docs/") in generated:
            return match[0]
        if path.startswith("..") or not (ROOT / path).exists():
            raise SystemExit(f"{page}: a link to an existing file is required, got {match[2]}; correct the link")
        linked.append(path)
        if re.fullmatch(r"L\d+", anchor):
            anchor = f"__span-0-{anchor[1:]}"  # a line of a page that shows a file
        found = os.path.relpath(site_path(path), os.path.dirname(site_path(page)) or ".").replace(os.sep, "/")
        return match[1] + found + (f"#{anchor}" if anchor else "") + match[3]

    return outside_code(text, lambda part: LINK.sub(link, part))


# ---- pages -----------------------------------------------------------------------------------------------------------


def folder_page(path: str) -> str:
    """Return a page that lists the files of a folder of the repository, with links to them."""
    names = sorted(p.name for p in (ROOT / path).iterdir() if not p.name.startswith((".", "__pycache__")))
    listed = [name for name in names if (ROOT / path / name).is_dir() or name.endswith((".md", *LANGUAGES, *PICTURES))]
    return "\n".join([f"# {path}/", "", *(f"- [{name}]({name})" for name in listed)])


def file_page(path: str) -> str:
    """Return a page that shows a text file of the repository."""
    text = (ROOT / path).read_text(encoding="utf-8")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    return f"# {path}\n\n{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n{fence}\n"


def write_source(source: Path) -> list:
    """Write the Markdown and pictures of the site into a new folder, and return the navigation."""
    shutil.rmtree(source, ignore_errors=True)
    pending = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()]
    pending = [path for path in pending if "__pycache__" not in path and Path(path).name not in NOT_PAGES]
    generated = reference_pages(ROOT)
    for name, text in generated.items():
        write(source / name, for_generator(relinked(text, f"docs/{name}", pending, generated)))
    known = {f"docs/{name}" for name in generated}
    while pending:
        path = pending.pop()
        if path in known:
            continue
        known.add(path)
        file = source / site_path(path)
        if (ROOT / path).is_dir():
            write(file, for_generator(relinked(folder_page(path), f"{path}/index.md", pending)))
        elif path.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            write(file, for_generator(relinked(text, path, pending)))
        elif path.endswith(PICTURES) or path.startswith("docs/"):
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, file)
        else:
            write(file, file_page(path))
    return navigation(source, generated)


def write(file: Path, text: str) -> None:
    """Write a text file, and the folders around it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def title(file: Path) -> str:
    """Return the first heading of a page."""
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def navigation(source: Path, generated: dict[str, str]) -> list:
    """Return the navigation, which has every page of docs/ and of the reference."""
    tutorial = sorted(path.relative_to(source).as_posix() for path in (source / "tutorial").rglob("*.md"))
    tutorial.sort(key=lambda name: (not name.endswith("/index.md"), name))
    ops = [{generated[name].partition("\n")[0].lstrip("# "): name} for name in generated if name.startswith("ops/")]
    api = [{generated[name].partition("\n")[0].lstrip("# "): name} for name in generated if name.startswith("api/")]
    found = [
        {"Who is this for": "index.md"},
        {"Tutorial": [{title(source / name): name} for name in tutorial]},
        {"The engine in an afternoon": [{"In order, with questions": "reading.md"}, {"The map": "map.md"}]},
        {"Derivations": [{"How a gradient is derived": "derivations.md"}, *ops]},
        {"Guides": [{name: page} for name, page in GUIDES]},
        {"API": api},
    ]
    return [entry for entry in found if all(entry.values())]


def without_network(html: Path) -> None:
    """Replace the script by which pages opened from a disk are searched, which would be loaded from elsewhere."""
    for file in html.rglob("*.html"):
        own = os.path.relpath(html / "worker.js", file.parent).replace(os.sep, "/")
        write(file, file.read_text(encoding="utf-8").replace(f'"{ELSEWHERE}"', f'"{own}"'))


def main() -> None:
    """Build the site into a folder, build/site by default."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--source-only", action="store_true", help="write the Markdown, and do not build the site")
    given = parser.parse_args()
    folder = given.folder.resolve()
    config = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))
    config["project"]["nav"] = write_source(folder / "source")
    write(folder / "zensical.toml", tomli_w.dumps(config))
    if given.source_only:
        return
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--config-file", str(folder / "zensical.toml")]
    if subprocess.run(command, cwd=folder).returncode:
        raise SystemExit('build.py: the site could not be built; is the extra installed? pip install -e ".[docs]"')
    without_network(folder / "html")
    print(f"open {folder / 'html' / 'index.html'}")


if __name__ == "__main__":
    main()
