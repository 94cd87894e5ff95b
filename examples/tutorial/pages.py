"""Run every step of the tutorial and write what it prints into its page: `python examples/tutorial/pages.py [NN ...]`.

In docs/tutorial/NN-name.md, the output of NN_name.py is the block of text that follows the line `<!-- output -->`.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parent
ROOT = PROGRAMS.parents[1]
PAGES = ROOT / "docs" / "tutorial"
OUTPUT = re.compile(r"(<!-- output -->\n+```text\n)(.*?)(^```$)", re.DOTALL | re.MULTILINE)


def steps():
    """Return the programs of all steps, in order."""
    return sorted(PROGRAMS.glob("[0-9][0-9]_*.py"))


def page_of(program):
    """Return the page that explains a program."""
    return PAGES / f"{program.stem.replace('_', '-')}.md"


def printed(program, directory):
    """Run a program in a directory, into which it may write pictures, and return what it prints."""
    # Of a checkout that is not installed, Python finds the packages on this path.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": path}
    command = [sys.executable, program]
    run = subprocess.run(command, cwd=directory, env=environment, capture_output=True, encoding="utf-8")
    if run.returncode:
        raise RuntimeError(f"{program.name}: exit status {run.returncode}; it printed:\n{run.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in run.stdout.splitlines())


def quoted(page):
    """Return the output that a page quotes."""
    return OUTPUT.search(page)[2]


def main():
    """Write the outputs of all steps, or of those whose numbers are given, into their pages."""
    for program in steps():
        if len(sys.argv) == 1 or program.name[:2] in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as directory:
                output = printed(program, directory)
            page = page_of(program)
            text = OUTPUT.sub(lambda found, output=output: found[1] + output + found[3], page.read_text("utf-8"))
            page.write_text(text, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
