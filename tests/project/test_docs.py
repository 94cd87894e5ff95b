"""The files, names, flags and links that README, CONTRIBUTING and docs/ mention exist, and their programs run."""

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from xml.etree import ElementTree

import pytest

from models.cli.main import COMMANDS
from tests import ROOT, small_runs

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
EXAMPLE = "arcsinh"  # the op that CONTRIBUTING adds; see test_contributing.py
PACKAGES = ("tensorlib", "nn", "models")
FOLDERS = (*PACKAGES, "tests", "examples", "benchmarks", "docs", ".ci")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def inline_code(text):
    """Return what is between single backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(text):
    """Return the command lines in shell blocks and in inline code, split into words."""
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines = [part for line in lines for part in line.split(" && ")]
    lines += [code for code in inline_code(text) if code.startswith(("tensorlib ", "python ", "benchmarks/"))]
    return [shlex.split(line, comments=True) for line in lines]


# ---- files and links -------------------------------------------------------------------------------------------------


def missing_files(text):
    """Return the paths and file names in code that are not in the repository and that the program does not write."""
    words = [word for code in inline_code(text) for word in code.split()]
    words += [word for command in commands(text) for word in command]
    paths = {word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[\w.-]+/", word)}
    names = {word for word in words if re.fullmatch(r"[\w-]+(\.[\w-]+)*\.(py|cu|toml|md|model|jsonl|txt|svg)", word)}
    missing = {path for path in paths if path.partition("/")[0] in FOLDERS and not (ROOT / path).exists()}
    return sorted(missing | {name for name in names if not in_repository(name) and not written(name)})


def in_repository(name):
    return any(next((ROOT / folder).rglob(name), None) for folder in FOLDERS)


def written(name):
    """Return whether a source file has this file name in quotes."""
    return any(f'"{name}"' in text_of(path) for path in (ROOT / "models").rglob("*.py"))


@each_page
def test_files_exist(page):
    assert not missing_files(text_of(page))


def missing_links(page, text):
    """Return the relative links and pictures that lead nowhere, with or without an anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = []
    for target in targets:
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if "://" not in target and (not file.exists() or (anchor and anchor not in anchors(text_of(file)))):
            missing.append(target)
    return missing


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_resolve(page):
    assert not missing_links(page, text_of(page))


# ---- names -----------------------------------------------------------------------------------------------------------


def missing_names(text):
    """Return the dotted names in our packages, such as tl.softmax or tensorlib.arrays.backend, that do not exist."""
    found = re.findall(r"(?<![\w./-])(tl|optim|tensorlib|nn|models)((?:\.[A-Za-z_]\w*)+)(?![\w/])", text)
    names = {package + rest for package, rest in found if not rest.endswith((".py", f".{EXAMPLE}"))}
    return sorted(name for name in names if not exists(name))


def exists(name):
    """Return whether a dotted name can be imported or read; of kernels for CUDA, only the files must exist."""
    first, *rest = name.split(".")
    package, *parts = [*{"tl": ["tensorlib"], "optim": ["nn", "optim"]}.get(first, [first]), *rest]
    folder = ROOT / package
    value = import_module(package)
    for i, part in enumerate(parts):
        folder = folder / part
        if hasattr(value, part):
            value = getattr(value, part)
        elif folder.is_dir() or folder.with_suffix(".py").is_file():
            if "cuda" in parts[: i + 1]:
                return True
            value = import_module(".".join([package, *parts[: i + 1]]))
        else:
            return False
    return True


@each_page
def test_names_exist(page):
    assert not missing_names(text_of(page))


@each_page
def test_environment_variables_exist(page):
    read_by = [*(ROOT / "tensorlib").rglob("*.py"), ROOT / "tests" / "emulated_gpu" / "__init__.py"]
    sources = "".join(map(text_of, read_by))
    for name in set(re.findall(r"TENSORLIB_\w+", text_of(page))):
        assert f'"{name}"' in sources, name


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flags():
    """Return for each command the flags in its help."""
    found = {}
    environment = {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "120"}
    for name in COMMANDS:
        command = [sys.executable, "-m", "tensorlib", name, "--help"]
        shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        found[name] = set(re.findall(r"--[a-z][\w.-]*", shown)) | {"--help"}
    return found


def unknown_flags(text, flags):
    """Return the command lines with a command or flag that does not exist, and such flags alone."""
    wrong = []
    for words in commands(text):
        given = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
        if words[:1] and words[0].endswith("tensorlib"):
            known = flags.get(words[1], {"--help"}) if words[1] in flags or words[1] == "COMMAND" else None
        elif words[:1] == ["python"] and words[1].endswith(".py"):
            known = set(re.findall(r"--[a-z][\w-]*", text_of(ROOT / words[1])))
        else:
            continue
        wrong += [" ".join(words)] if known is None or not set(given) <= known else []
    every = set.union(*flags.values())
    alone = [code.split()[0] for code in inline_code(text) if code.startswith("--")]
    return wrong + [flag for flag in alone if flag not in every]


@each_page
def test_commands_and_their_flags_exist(page, flags):
    assert not unknown_flags(text_of(page), flags)


def test_every_command_is_described():
    table = text_of(ROOT / "docs" / "training.md")
    assert set(re.findall(r"^\| `tensorlib (\w+)`", table, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("`tensorlib/engine/nothing.py`", missing_files),
        ("`nothing.jsonl`", missing_files),
        ("[page](docs/nothing.md)", lambda text: missing_links(ROOT / "README.md", text)),
        ("[page](docs/map.md#nothing)", lambda text: missing_links(ROOT / "README.md", text)),
        ("tl.softmaxx", missing_names),
        ("`tensorlib.arrays.nothing`", missing_names),
    ],
)
def test_what_does_not_exist_is_noticed(text, wrong):
    assert wrong(text)


@pytest.mark.parametrize(
    "text",
    ["`--nothing`", "`tensorlib nothing`", "```sh\ntensorlib train \\\n --beam 4\n```", "`tensorlib info --run`"],
)
def test_a_flag_that_does_not_exist_is_noticed(text, flags):
    assert unknown_flags(text, flags)


# ---- programs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in DOCS if blocks(text_of(page), "python")], ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path):
    """The blocks of a page are one program, in a directory with a trained run."""
    if page.name == "decoding.md":
        config = small_runs.config_maker(tmp_path)(steps=2, validate_every=2, save_every=2)
        small_runs.train(config, tmp_path / "runs" / "phrasebook-transformer-1")
    if page.name == "language.md":
        config = small_runs.language_config_maker(tmp_path)(steps=2, validate_every=2, save_every=2)
        small_runs.train(config, tmp_path / "runs" / "bible-language-1")
    program = tmp_path / "page.py"
    head = "import numpy as np\nimport tensorlib as tl\n"
    program.write_text(head + "\n".join(blocks(text_of(page), "python")), encoding="utf-8")
    environment = {**os.environ, "PYTHONUTF8": "1"}
    run = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_quoted_output_is_what_the_example_prints():
    page, example = text_of(ROOT / "docs" / "engine.md"), ROOT / "examples" / "05_why_is_my_gradient_zero.py"
    quoted = re.findall(r"^    ((?:log|hidden).*)$", page, re.MULTILINE)
    assert len(quoted) == 3
    run = subprocess.run([sys.executable, example], cwd=ROOT, capture_output=True, text=True, check=True)
    for line in quoted:
        assert line.removesuffix("...") in run.stdout


# ---- the map ---------------------------------------------------------------------------------------------------------

MAP = text_of(ROOT / "docs" / "map.md")
LISTED_BY_FOLDER = (
    "tensorlib/ops", "tensorlib/optable", "tensorlib/kernels", "models/cli", "models/text/corpora", "models/system",
)  # fmt: skip


def rooms(package):
    return {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


def test_the_map_names_every_file():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            folder = next((folder for folder in LISTED_BY_FOLDER if name.startswith(f"{folder}/")), None)
            if folder or path.name != "__init__.py":
                title = text_of(path).partition("\n")[0].strip('r"')
                assert f"`{name}`" in MAP or (folder and f"`{folder}/" in MAP), f"docs/map.md lacks {name}: {title}"


def test_the_map_and_its_picture_have_every_room():
    picture = ElementTree.parse(ROOT / "docs" / "pictures" / "map.svg")
    drawn = {node.text.removesuffix(".py") for node in picture.iter() if node.get("class") == "name"}
    chains = re.findall(r"^- (?:models|tensorlib): (.*(?:\n  .*)*)", MAP, re.MULTILINE)
    named = {room for chain in chains for room in re.split(r"[\s>|]+", chain)}
    files = {"tensor", "messages", "pytorch_words"}
    assert drawn == named == rooms("tensorlib") | rooms("models") | files


def test_pictures_are_well_formed_and_fit_the_page():
    for path in (ROOT / "docs" / "pictures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert int(root.get("width")) <= 700, path.name
