"""Every step of the tutorial runs, prints what its page quotes, and is the program that its page explains."""

import json
import re
import subprocess
import sys
from textwrap import dedent

import pytest

from tests import ROOT
from tests.project.test_docs import missing_files, missing_links, missing_names

sys.path.insert(0, str(ROOT / "examples" / "tutorial"))
import pages

sys.path.pop(0)

STEPS = pages.steps()
ALL = sorted(pages.PAGES.glob("*.md"))
each_step = pytest.mark.parametrize("program", STEPS, ids=lambda program: program.stem)
each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)


def text_of(path):
    return path.read_text(encoding="utf-8")


@each_step
def test_a_page_quotes_what_its_program_prints(program, tmp_path):
    remedy = f"run `python examples/tutorial/pages.py {program.name[:2]}`, and read what the page says about it"
    assert pages.quoted(text_of(pages.page_of(program))) == pages.printed(program, tmp_path), remedy


@each_step
def test_the_lines_of_code_in_a_page_are_its_programs(program):
    excerpts = re.findall(r"^```python\n(.*?)^```$", text_of(pages.page_of(program)), re.DOTALL | re.MULTILINE)
    assert excerpts
    for excerpt in excerpts:
        assert is_excerpt(excerpt, text_of(program)), excerpt


def is_excerpt(excerpt, program):
    """Return whether these lines follow each other in a program, at any indentation."""
    lines, count = program.splitlines(), len(excerpt.splitlines())
    parts = ("\n".join(lines[i : i + count]) for i in range(len(lines) - count + 1))
    return any(dedent(part) == dedent(excerpt).rstrip("\n") for part in parts)


@each_step
def test_a_program_is_short(program):
    assert len(text_of(program).splitlines()) <= 90


def test_the_steps_are_in_order():
    index = text_of(pages.PAGES / "index.md")
    names = [pages.page_of(program).name for program in STEPS]
    assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", index) == names  # each step once
    assert [name[:2] for name in names] == [f"{n:02}" for n in range(1, len(names) + 1)]
    for name, following in zip(names, [*names[1:], "index.md"], strict=True):
        assert f"]({following})" in text_of(pages.PAGES / name).splitlines()[-1], f"{name} ends with a link to the next"


@each_page
def test_what_a_page_names_exists(page):
    text = text_of(page)
    assert not missing_links(page, text)
    assert not missing_files(text)
    assert not missing_names(text)


# ---- notebooks -------------------------------------------------------------------------------------------------------


def test_the_notebooks_hold_pages_and_programs(tmp_path):
    command = [sys.executable, pages.PROGRAMS / "notebooks.py", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [program.stem for program in STEPS]
    for program in STEPS:
        notebook = json.loads(text_of(tmp_path / f"{program.stem}.ipynb"))
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        page, code = notebook["cells"]
        assert (page["cell_type"], code["cell_type"]) == ("markdown", "code")
        assert page["id"] != code["id"]  # as nbformat 4.5 requires
        assert "".join(code["source"]) + "\n" == text_of(program)
        assert code["outputs"] == [] and code["execution_count"] is None
        text = "".join(page["source"])
        assert text.startswith("# Step") and "## Questions" in text and "<!-- output -->" not in text
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            assert (tmp_path / link).exists(), link


def test_without_a_directory_the_notebooks_say_what_is_required():
    run = subprocess.run([sys.executable, pages.PROGRAMS / "notebooks.py"], capture_output=True, text=True)
    assert run.returncode and run.stderr.startswith("usage:")


# ---- these tests find what they are for ------------------------------------------------------------------------------


def test_a_page_that_drifted_is_noticed():
    program = "def f():\n    x = 1\n    return x\n"
    assert is_excerpt("x = 1\nreturn x\n", program)
    assert not is_excerpt("x = 1\nreturn x + 1\n", program)
    assert pages.quoted("<!-- output -->\n\n```text\n1\n2\n```\n") == "1\n2\n"
