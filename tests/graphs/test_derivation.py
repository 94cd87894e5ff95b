"""`tl.derive`: its equations, its LaTeX, and its programs, which have the engine's bits without the engine."""

import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.bf16 import rounded_to_bf16
from tensorlib.engine.recording import recording
from tensorlib.graphs.derivation_latex import math, words
from tensorlib.graphs.formulas import Part, rule_of
from tensorlib.graphs.script import script_of
from tests import ROOT
from tests.graphs.derived import OTHERS, RUNNER, TABLE, engine, loss_of
from tests.kernels.test_bf16 import formula_of_product
from tests.recorded import leaf, network


def network_of_names():
    x, w, b = leaf(4, 3), leaf(3, 2), leaf(2)
    h = tl.tanh(x @ w + b)
    return (tl.softmax(h) * h / 3.0 - 2 * h).sum(), {"x": x, "w": w, "b": b, "h": h}


# ---- the program has the engine's bits -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scripts of all computations, what an engine without kernels computes, and what the scripts compute alone."""
    folder = tmp_path_factory.mktemp("derived")
    env = os.environ | {"TENSORLIB_KERNELS": "0", "TENSORLIB_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "tests.graphs.derived", str(folder)], cwd=ROOT, env=env, check=True)
    subprocess.run([sys.executable, "-I", "-c", RUNNER, str(folder)], cwd=folder, env=env, check=True)
    return folder


def differences(expected, found):
    """Return the names of the arrays of which a single bit differs, or the dtype or shape."""

    def bits(x):
        return None if x is None else (x.dtype, x.shape, x.tobytes())

    return [name for name, x in expected.items() if bits(x) != bits(found.get(name))]


def loaded(path):
    with np.load(path) as file:
        return {name: np.ascontiguousarray(file[name]).reshape(file[name].shape) for name in file.files}


@pytest.mark.parametrize("name", [*OTHERS, *TABLE])
def test_a_script_has_the_bits_of_the_engine(name, folder):
    """The value, the gradients of all leaves, and those of all results on the way."""
    expected, found = loaded(folder / f"{name}.npz"), loaded(folder / f"{name}.run.npz")
    assert differences(expected, found) == []
    assert {name for name in found if name.startswith("gradient ")} == {
        n for n in expected if n.startswith("gradient ")
    }
    assert "import tensorlib" not in (folder / f"{name}.py").read_text("utf-8")


def test_there_are_enough_computations():
    assert len(TABLE) >= 90


@pytest.mark.parametrize("name", [*OTHERS, "softmax", "layer_norm", "cross_entropy", "lstm", "conv2d"])
def test_kernels_agree_with_the_script(name, folder):
    """The value and the gradients of leaves, to 1e-6 of the largest number of each array."""
    derivation, arrays = engine(name)
    script = loaded(folder / f"{name}.run.npz")
    for key in [f"value {derivation.output}", *[f"gradient {g.symbol}" for g in derivation.given if g.needs_gradient]]:
        assert np.abs(arrays[key] - script[key]).max() <= 1e-6 * max(np.abs(script[key]).max(), 1e-3), key


@pytest.mark.parametrize(
    "name, right, wrong",
    [
        ("tanh", "dy * (1 - y * y)", "dy * (1 + y * y)"),
        ("softmax", "return y * (dy - ", "return y * (dy + "),
        ("transformer", "sums[name] = sums[name] + dx", "sums[name] = dx"),
        ("dropout", "bits >= dropped_levels(p)", "bits > dropped_levels(p) + 9999"),
    ],
)
def test_an_error_in_a_script_is_found(name, right, wrong, folder, tmp_path):
    text = (folder / f"{name}.py").read_text("utf-8")
    assert right in text
    (tmp_path / "wrong.py").write_text(text.replace(right, wrong))
    values, gradients = runpy.run_path(str(tmp_path / "wrong.py"))["run"]()
    found = {f"value {k}": v for k, v in values.items()} | {f"gradient {k}": v for k, v in gradients.items()}
    assert differences(loaded(folder / f"{name}.npz"), found)


def test_a_script_run_as_a_program_prints_checksums(folder):
    done = subprocess.run(
        [sys.executable, "-I", folder / "tanh.py"], capture_output=True, text=True, check=True, cwd=folder
    )
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"value z\d+  \(\) float32  [0-9a-f]{16}  \S+", lines[0])
    assert re.match(r"gradient of x0  \(.*\) float32  [0-9a-f]{16}", lines[1])
    assert lines[-1] == "the value has the bits that tensorlib computed"


def run(derivation, tmp_path):
    (tmp_path / "script.py").write_text(derivation.script(), encoding="utf-8")
    return runpy.run_path(str(tmp_path / "script.py"))["run"]()


def test_a_derivation_keeps_the_values_that_were_given(tmp_path):
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    derivation = tl.derive(y, names={"x": x})
    y.backward()
    x.data -= 1.0
    assert run(derivation, tmp_path)[1]["x"].tolist() == [2, 4]


def test_the_weights_of_an_output_with_several_elements(tmp_path):
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    assert run(tl.derive(x * x, {"x": x}), tmp_path)[1]["x"].tolist() == [2, 4]
    derivation = tl.derive(x * x, {"x": x}, gradient=[1.0, 10.0])
    assert run(derivation, tmp_path)[1]["x"].tolist() == [2, 40] and "dz1  = given" in str(derivation)


def test_a_leaf_alone_and_products_in_bf16(tmp_path):
    x = tl.Tensor([[1.0, 2.0]], requires_grad=True)
    assert run(tl.derive(x, {"x": x}), tmp_path)[1]["x"].tolist() == [[1, 1]] and "forward" in str(tl.derive(x))
    w = tl.Tensor(np.random.default_rng(0).normal(size=(2, 3)).astype("float32"), requires_grad=True)
    with formula_of_product():  # kernels multiply such small matrices without rounding
        with recording(precision="bf16"):
            y = (x @ w) @ w.T
        values, gradients = run(tl.derive(y, {"x": x, "w": w}), tmp_path)
        y.backward(tl.ones(y.shape))
    rounded = rounded_to_bf16(rounded_to_bf16(x.data) @ rounded_to_bf16(w.data)) @ rounded_to_bf16(w.data).T
    np.testing.assert_allclose(values["z3"], rounded, rtol=1e-6)
    np.testing.assert_allclose(gradients["w"], w.grad.numpy(), rtol=1e-6)


# ---- ops of a user ---------------------------------------------------------------------------------------------------

FACTOR = 3.0


def times(x):
    return x * FACTOR


class Tanh(tl.Function):
    """y = 3 x^2  =>  dx = 6 x dy."""

    def forward(self, x):
        self.save(x)
        return times(x) * x

    def backward(self, dy):
        (x,) = self.saved
        return 2 * tl.namespace_of(dy).multiply(times(x), dy)


def test_an_op_of_a_user_comes_with_what_it_uses_beside_one_of_the_same_name(tmp_path):
    x = tl.Tensor([0.1, 0.2], requires_grad=True)
    derivation = tl.derive(Tanh.apply(x) + tl.tanh(x), {"x": x})
    values, gradients = run(derivation, tmp_path)
    np.testing.assert_allclose(values["z3"], 3 * x.data**2 + np.tanh(x.data), rtol=1e-6)
    np.testing.assert_allclose(gradients["x"], 6 * x.data + 1 - np.tanh(x.data) ** 2, rtol=1e-6)
    assert "z1 = 3 x^2" in str(derivation) and "dx  += 6 x dz1" in str(derivation)


def test_what_a_script_cannot_contain_is_refused():
    def outside(x):
        return x

    class Local(tl.Function):
        def forward(self, x):
            return outside(x) + 1

        def backward(self, dy):
            return dy

    x = tl.Tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match=r"Local uses outside, which tests\.graphs\.test_derivation does not define"):
        tl.derive(Local.apply(x)).script()
    x.register_hook(lambda dx: 2 * dx)
    with pytest.raises(ValueError, match="a hook may change that of x"):
        tl.derive(x * 2, {"x": x}).script()


# ---- equations -------------------------------------------------------------------------------------------------------


def lines_of(derivation):
    return [re.sub(" +", " ", line.strip()) for line in str(derivation).splitlines()]


def test_equations_in_the_order_of_both_passes():
    y, names = network_of_names()
    lines = lines_of(tl.derive(y, names))
    forward, backward = lines.index("forward"), lines.index("backward")
    assert lines[forward + 1 : forward + 4] == [
        "z1 = x w (4, 2) matmul",
        "z2 = z1 + b (4, 2) add",
        "h = tanh(z2) (4, 2) tanh",
    ]
    assert lines[backward + 1 : lines.index("", backward)] == [
        "dz9 = 1 ()",
        "dz8 = [every element of z8 gets the whole of dz9] (4, 2) sum",
        "dz6 = dz8 (4, 2) subtract, input 1",
        "dz7 = -dz8 (4, 2) subtract, input 2",
        "dh = dz7 · 2 (4, 2) multiply",
        "dz5 = dz6 / 3.0 (4, 2) divide",
        "dz4 = dz5 h (4, 2) multiply, input 1",
        "dh += dz5 z4 (4, 2) multiply, input 2",
        "dh += z4 (dz4 - <dz4, z4>) (4, 2) softmax",
        "dz2 = dh (1 - h^2) (4, 2) tanh",
        "dz1 = dz2 (4, 2) add, input 1",
        "db = dz2, summed to (2,) (2,) add, input 2",
        "dx = dz1 w^T (4, 3) matmul, input 1",
        "dw = x^T dz1 (3, 2) matmul, input 2",
    ]


def test_a_value_that_is_used_twice_gets_two_summands():
    a = tl.Tensor(1.0, requires_grad=True)
    b = a + a
    lines = lines_of(tl.derive(b + b, {"a": a, "b": b}))
    assert [line for line in lines if line.startswith("d")] == [
        "dz2 = 1 ()",
        "db = dz2 () add, input 1",
        "db += dz2 () add, input 2",
        "da = db () add, input 1",
        "da += db () add, input 2",
    ]


def test_a_name_that_a_formula_introduces_is_told_apart_from_one_of_the_graph():
    q, k, w = leaf(2, 3), leaf(4, 3), leaf(4, 5)
    lines = lines_of(tl.derive(tl.scaled_dot_product_attention(q, k, w), {"q": q, "k": k, "w": w}))
    assert any(line.startswith("z1 = (m · w_1) w with w_1 = softmax(q k^T / sqrt(K))") for line in lines)


@pytest.mark.parametrize("name", TABLE)
def test_every_op_has_equations_without_the_names_of_its_parameters(name):
    derivation, _ = engine(name)
    text = str(derivation)
    backward = text.partition("\nbackward\n")[2].partition("\n\n")[0]
    assert all("=" in line for line in backward.splitlines())
    check_latex(derivation.latex())


def test_most_ops_state_their_gradient_as_an_equation():
    classes = {step.op for name in TABLE for step in tl.derive(loss_of(name)[0]).steps}
    stated = {op for op in classes if rule_of(op).gradients}
    assert len(stated) >= 0.8 * len(classes)


# ---- names -----------------------------------------------------------------------------------------------------------

HOSTILE = [
    "'''\nimport os; os.abort()\n'''", '"""', "\\end{align*}\\input{/etc/passwd}", "% $ & # _ ^ ~ { }", "lambda",
    "print", "np", "run", "computed", "Function", "z1", "dz1", "我" * 10_000, "\x1b[31m\u202e", "θ",
    "", "a\\", "__builtins__", "d",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_out(name, tmp_path):
    x, other = tl.Tensor([0.5, 1.0], requires_grad=True), tl.Tensor(3.0, requires_grad=True)
    x.name = name  # as a module with such an attribute would
    z = tl.tanh(x)
    with tl.module_scope(name):
        y = z.sum() * other
    derivation = tl.derive(y, {name: other, name + " ": z})
    assert all(line.isprintable() for line in str(derivation).splitlines())
    check_latex(derivation.latex(document=True))
    values, gradients = run(derivation, tmp_path)
    (given, factor) = derivation.given
    assert gradients[given.symbol].shape == (2,) and gradients[factor.symbol] == np.tanh(x.data).sum()
    assert values[derivation.output] == derivation.value


# ---- LaTeX -----------------------------------------------------------------------------------------------------------


def check_latex(text):
    """Assert what LaTeX needs: braces in pairs, no bare special characters, and no two exponents or subscripts."""
    assert text.isascii()
    body = text.replace("\\{", "").replace("\\}", "")
    depth = 0
    for c in body:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    for begin, end in zip(re.findall(r"\\begin\{(.*?)\}", text), re.findall(r"\\end\{(.*?)\}", text), strict=False):
        assert {begin, end} <= {"align*", "document"}
    assert text.count("\\begin{align*}") == text.count("\\end{align*}") == 2
    known = "begin end mathrm text top cdot le ge ne dots Rightarrow langle rangle mathrel quad sum mathit operatorname"
    known += " pi exp log sin cos tan sinh cosh tanh arcsin arccos arctan max min backslash hat sim textbackslash"
    known += " textless textgreater textbar documentclass usepackage allowdisplaybreaks"
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= set(known.split())
    assert not re.search(r"(?<!\\)([_^])\{[^{}]*\}\1", text), "a second subscript or exponent"
    assert not re.search(r"(?<!\\)[#$%]", re.sub(r"^%.*$|\$\S+\$", "", text, flags=re.M))


@pytest.mark.parametrize(
    "formula, expected",
    [
        ("exp(-t^2) y_{i+1}", r"\exp (-t^{2})\,y_{i+1}"),
        ("x^(-3/2) / 2", r"x^{-3/2} / 2"),
        ("e^-|x| · 2", r"e^{-|x|} \cdot 2"),
        ("sum_k dy_k where x <= 0, else 0", r"\sum_{k} {\mathrm{d}y}_{k} \text{ where } x \le 0, \text{ else } 0"),
        ("a_i_j", r"a_{i}{}_{j}"),
        ("50% of {x} & $", r"50\% \text{ of } \{x\} \& \$"),
    ],
)
def test_formulas_in_latex(formula, expected):
    assert re.sub(" +", " ", math([Part("", formula)])) == expected


def test_words_in_latex():
    assert words("a_b\\c") == r"a\_b\textbackslash{}c" and len(words("x" * 10_000)) == 60


def test_latex_of_a_network():
    y, names = network_of_names()
    text = tl.derive(y, names).latex()
    check_latex(text)
    assert r"{\mathrm{d}x} &= {\mathrm{d}z_{1}}\,{w}^{\top} &&\quad (4, 3) &&\quad \text{matmul} \\" in text
    assert r"{\mathrm{d}h} &\mathrel{+}= {\mathrm{d}z_{5}}\,{z_{4}}" in text
    assert tl.derive(y, names)._repr_latex_() == text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX")
def test_latex_compiles(tmp_path):
    """The derivation of every op, of a Transformer, and one with hostile names."""
    losses = [loss_of(name) for name in [*OTHERS, *TABLE]]
    for name in HOSTILE:
        x = tl.Tensor([0.5, 1.0], requires_grad=True)
        x.name = name
        losses.append((tl.tanh(x).sum(), {}))
    documents = [tl.derive(loss, names).latex(document=True) for loss, names in losses]
    bodies = [text.split(r"\begin{document}")[1].split(r"\end{document}")[0] for text in documents]
    start = documents[0].split(r"\begin{document}")[0]
    whole = "\n".join([start, r"\begin{document}", *bodies, r"\end{document}", ""])
    (tmp_path / "all.tex").write_text(whole, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if line.startswith(("!", "l."))]


def test_a_long_derivation_is_not_printed_into_a_notebook():
    x = y = leaf(2)
    for _ in range(201):
        y = tl.tanh(y)
    derivation = tl.derive(y, {"x": x})
    assert derivation._repr_latex_() is None and len(script_of(derivation).splitlines()) < 1200


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_errors():
    with pytest.raises(TypeError, match="derive: needs a Tensor, got list"):
        tl.derive([1.0])
    with pytest.raises(ValueError, match=r"derive: nothing was recorded for the Tensor of shape \(2,\)"):
        tl.derive(tl.ones(2))
    y = network()
    with pytest.raises(ValueError, match=r"derive: the gradient must have the output's shape \(\), got \(3,\)"):
        tl.derive(y, gradient=np.ones(3))
    y.backward()
    with pytest.raises(RuntimeError, match="derive: the graph behind sum was released by an earlier backward pass"):
        tl.derive(y)
