"""What is installed: wheel and sdist, the ways to start the command line, and what may hide our packages."""

import os
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile

import pytest

import tensorlib as tl
from models.system.shadowing import require_own_nn
from tensorlib import shadowing
from tests import ROOT

PACKAGES = ("tensorlib", "nn", "models")
HOSTILE = "raise SystemExit('another project was imported')\n"
COMMANDS = {
    "script": ("-c", "import sys; from tensorlib_command import main; sys.exit(main())"),
    "module": ("-m", "tensorlib"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("site")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name)
    shutil.move(folder / "tensorlib" / "console_script.py", folder / "tensorlib_command.py")
    return folder


@pytest.fixture
def broken_site(site, tmp_path):
    """Return a folder like `site` after `pip install nn`, which put another package's file in place of ours."""
    folder = tmp_path / "broken"
    shutil.copytree(site, folder)
    (folder / "nn" / "__init__.py").write_text("print('another project was imported')\n")
    return folder


@pytest.fixture
def student(tmp_path):
    """Return a folder with a user's own nn.py and models.py."""
    folder = tmp_path / "student"
    folder.mkdir()
    for name in ("nn", "models"):
        (folder / f"{name}.py").write_text(HOSTILE)
    return folder


def python(*arguments, path=(), cwd):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


# ---- what hides our packages ----


@pytest.mark.parametrize("name", ["nn", "models"])
@pytest.mark.parametrize("kind", ["{}.py", "{}/__init__.py"])
def test_importing_tensorlib_warns_of_a_file_that_hides_a_package(site, tmp_path, name, kind):
    file = tmp_path / kind.format(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(HOSTILE)
    (tmp_path / "script.py").write_text("import sys\nimport tensorlib\nassert 'nn' not in sys.modules\n")
    done = python("script.py", path=[site], cwd=tmp_path)
    assert done.returncode == 0 and f"but `import {name}` finds {file}; rename that" in done.stderr
    assert "script.py:2: UserWarning: tensorlib's own package" in done.stderr
    assert done.stderr.count("UserWarning") == 1


@pytest.mark.parametrize(
    "line", ["import tensorlib.ops", "import nn", "from nn.layers import *", "import_module('nn')"]
)
def test_the_warning_names_the_users_line_whichever_package_comes_first(site, tmp_path, line):
    (tmp_path / "script.py").write_text(f"from importlib import import_module\n\n{line}\n")
    (tmp_path / "models.py").write_text(HOSTILE)
    done = python("script.py", path=[site], cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.count("UserWarning") == 1
    assert "script.py:3: UserWarning: tensorlib's own package models is required" in done.stderr


def test_importing_tensorlib_warns_of_a_package_that_pip_installed_over_ours(broken_site, tmp_path):
    done = python("-c", "import tensorlib", path=[broken_site], cwd=tmp_path)
    file = broken_site / "nn" / "__init__.py"
    assert done.returncode == 0 and f"package nn is required, but `import nn` finds {file}" in done.stderr


def test_nothing_is_said_where_nothing_hides_them(site, tmp_path):
    (tmp_path / "nn").mkdir()  # a folder without __init__.py hides no package
    code = "import tensorlib, nn, models; models.Transformer"
    done = python("-W", "error", "-c", code, path=[site], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_said_where_tensorlib_is_alone(site, student):
    shutil.copytree(site / "tensorlib", student / "tensorlib")
    done = python("-W", "error", "-c", "import tensorlib", cwd=student)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stand_in_without_a_spec_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "nn", type(tl)("nn"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shadowing.warn_if_shadowed()
    require_own_nn()


def test_models_refuse_a_file_that_hides_nn(site, tmp_path):
    (tmp_path / "nn.py").write_text(HOSTILE)
    done = python("-c", "import models", path=[site], cwd=tmp_path)
    expected = f"ImportError: tensorlib's own package nn is required, but `import nn` finds {tmp_path / 'nn.py'}; "
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(expected)


def test_both_checks_use_the_same_words(broken_site, tmp_path):
    warned = python("-c", "import tensorlib", path=[broken_site], cwd=tmp_path).stderr.splitlines()[0]
    refused = python("-c", "import models", path=[broken_site], cwd=tmp_path).stderr.splitlines()[-1]
    assert warned.partition("UserWarning: ")[2] == refused.partition("ImportError: ")[2] != ""


def test_models_refuse_a_package_that_pip_installed_over_nn(broken_site, tmp_path):
    done = python("-c", "import models", path=[broken_site], cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert (
        f"but `import nn` finds {broken_site / 'nn' / '__init__.py'}; rename that file or folder, or reinstall" in last
    )
    assert done.returncode == 1 and done.stdout == ""


@pytest.mark.parametrize("name", ["nn", "models"])
def test_both_packages_bear_the_mark(name):
    assert (ROOT / name / "__init__.py").read_bytes().count(shadowing.MARK) == 1


# ---- the command line ----


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_command_line_finds_its_own_packages(site, student, command):
    if command[0] == "-c":
        (student / "tensorlib.py").write_text(HOSTILE)
    done = python(*command, "info", path=[student, site], cwd=student)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"tensorlib {tl.__version__}, Python ")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_command_line_is_one_line_where_nn_was_overwritten(broken_site, tmp_path, command):
    done = python(*command, "--help", path=[broken_site], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tensorlib: tensorlib's own package nn") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("beside", [True, False])
def test_the_script_prefers_its_own_package_to_one_on_pythonpath(site, student, tmp_path, beside):
    """Also test packages that are not beside the script: an editable install lists their folder in a .pth file."""
    (student / "tensorlib").mkdir()
    for name in ("__init__", "__main__"):
        (student / "tensorlib" / f"{name}.py").write_text(HOSTILE)
    script = tmp_path / "script"
    script.mkdir()
    shutil.copy(site / "tensorlib_command.py", script)
    installed = f"sys.path.append({str(site)!r})"
    code = f"import sys; {installed}; from tensorlib_command import main; sys.exit(main())"
    for cwd in (student, tmp_path):
        done = python("-c", code, "--version", path=[student, site if beside else script], cwd=cwd)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{tl.__version__}\n", "")


def test_the_script_without_any_package_says_what_is_missing(site, tmp_path):
    shutil.copy(site / "tensorlib_command.py", tmp_path)
    done = python(
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.append({str(tmp_path)!r}); import tensorlib_command as c; c.main()",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "tensorlib: the package tensorlib is required, but no folder of sys.path has it; install it again\n"
    )


def test_the_script_leaves_other_modules_where_they_were(site, tmp_path):
    code = "import sys; before = list(sys.path); from tensorlib_command import main; main(); print(sys.path == before)"
    done = python("-c", code, "--version", path=[site], cwd=tmp_path)
    assert done.stdout.split() == [tl.__version__, "True"]


def test_the_help_of_the_script_does_not_import_numpy(site, tmp_path):
    code = "import sys; from tensorlib_command import main; main(); print('numpy' in sys.modules)"
    done = python("-c", code, "--help", path=[site], cwd=tmp_path)
    assert done.stdout.startswith("Usage: tensorlib") and done.stdout.endswith("False\n")


# ---- wheel and sdist ----


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the names of the files in the wheel and in the sdist, the latter without its folder."""
    pytest.importorskip("hatchling", reason="needs the extra `dev`")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as files, tarfile.open(sdist) as archive:
        return set(files.namelist()), {name.partition("/")[2] for name in archive.getnames()}


def files_below(*folders):
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_packages_and_what_they_read(built):
    wheel, _ = built
    code = {name for name in wheel if ".dist-info/" not in name}
    assert code == files_below(*PACKAGES) - {"tensorlib/console_script.py"} | {"tensorlib_command.py"}
    kinds = {name.rpartition(".")[2] for name in code}
    assert kinds >= {"py", "html", "cu", "cuh", "typed"}
    assert {f"{name}/py.typed" for name in PACKAGES} <= code
    info = f"tensorlib-{tl.__version__}.dist-info"
    assert {f"{info}/METADATA", f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= wheel


def test_the_sdist_holds_all_that_is_tracked(built):
    _, sdist = built
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a checkout")
    listed = subprocess.run([git, "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert tracked and tracked <= sdist
    ignored = subprocess.run(
        [git, "check-ignore", "--stdin"], cwd=ROOT, input="\n".join(sdist), capture_output=True, text=True
    )
    assert ignored.stdout == ""
