"""Write the tutorial as Jupyter notebooks, one for each step: `python examples/tutorial/notebooks.py DIRECTORY`.

A notebook has the page in a Markdown cell and the program in a code cell. The output is not in it: run the cell.
"""

import json
import re
import sys
from pathlib import Path

from pages import OUTPUT, page_of, steps


def notebook(page, program):
    """Return a notebook (nbformat 4.5) as the text of its file."""
    text = {"cell_type": "markdown", "id": "page", "metadata": {}, "source": lines(for_notebook(page))}
    code = {"cell_type": "code", "id": "program", "metadata": {}, "source": lines(program)}
    cells = [text, {**code, "execution_count": None, "outputs": []}]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def lines(text):
    """Return text as notebooks hold it: a list of lines, each but the last with its end."""
    return text.rstrip("\n").splitlines(keepends=True)


def for_notebook(page):
    """Return a page without its quoted output. Links lead to the other notebooks; links to files become their names."""
    page = OUTPUT.sub("Run the cell below.\n", page)
    page = re.sub(r"\]\((\d\d)-([\w-]+)\.md\)", lambda link: f"]({link[1]}_{link[2].replace('-', '_')}.ipynb)", page)
    return re.sub(r"\[([^\]]+)\]\([^)\s]+\.(?:md|py)\)", r"\1", page)


def main():
    """Write all notebooks."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python examples/tutorial/notebooks.py DIRECTORY")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for program in steps():
        path = directory / f"{program.stem}.ipynb"
        text = notebook(page_of(program).read_text("utf-8"), program.read_text("utf-8"))
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
