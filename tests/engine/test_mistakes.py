"""Common mistakes with every public function: the error is one line with the function and the value given."""

import inspect
import pickle

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from tensorlib.optable import ROWS
from tests.strict import STRICT

X, Y = (tl.Tensor(np.arange(1.0, 7).reshape(2, 3) / k) for k in (7, 5))
MASK, IDS, POSITIONS = X > 0.5, tl.Tensor([0, 1]), tl.Tensor([[0], [1]])

# Arguments for functions that their row in the op table calls in another way.
CALLS = {
    "arange": [5], "astype": [X, "float64"], "bernoulli": [0.5, (2, 3)], "categorical": [X], "concatenate": [[X, Y]],
    "einsum": ["ij,ij->i", X, Y], "embedding": [X, IDS], "eye": [3], "full": [(2, 3), 1.0], "gather": [X, 1, POSITIONS],
    "getitem": [X, 1], "gumbel": [(2, 3)], "index_add": [X, 0, IDS, Y], "linspace": [0, 1, 5],
    "masked_fill": [X, MASK, 0.0], "normal": [(2, 3)], "one_hot": [IDS, 4], "ones": [(2, 3)], "permutation": [X],
    "reshape": [X, (3, 2)], "scatter": [X, 1, POSITIONS, X[:, :1]],
    "scatter_add": [X, 1, POSITIONS, X[:, :1]],
    "searchsorted": [X[0], X[1]], "split": [X, 3, 1], "stack": [[X, Y]], "take": [X, IDS, 1],
    "take_along_axis": [X, POSITIONS, 1], "topk": [X, 2], "transpose": [X, (1, 0)], "uniform": [(2, 3)],
    "where": [MASK, X, Y], "zeros": [(2, 3)],
}  # fmt: skip

# Values passed instead of a Tensor, each with the part of it that the message must show.
NOT_TENSORS = [
    (None, "NoneType; is a return missing? None itself is tested by x is None"),
    ({"a": 1}, "dict"), ({1.0}, "set"), ("abc", "<U3"), (np.array(["a", "b"]), "<U1"),
    (np.array([object()]), "object"), ([[1.0], [2.0, 3.0]], "rows of different lengths"), (len, "call it first"),
]  # fmt: skip

INTEGERS, FLAGS = [(1.5, "1.5"), ("x", "'x'"), (X, "shape (2, 3)")], [(2, "2"), ("yes", "'yes'"), (X, "shape (2, 3)")]
NOT_NEGATIVE, NUMBERS = [*INTEGERS, (-1, "-1")], [("x", "'x'"), (X, "shape (2, 3)"), ([0.1], "[0.1]")]
NAMES = [("avg", "'avg'"), (3, "3"), (["mean"], "['mean']")]

# The same for options, by name of the parameter.
OPTIONS = {
    "axis": [(9, "9"), (-9, "-9"), (True, "True"), *INTEGERS], "axis1": INTEGERS, "axis2": [(9, "9"), *INTEGERS],
    "start_axis": INTEGERS, "end_axis": INTEGERS, "source": [(9, "9")], "destination": [(9, "9")],
    "keepdims": [(1, "1"), *FLAGS], "descending": FLAGS, "largest": FLAGS, "log_target": FLAGS, "endpoint": FLAGS,
    "return_weights": FLAGS, "return_statistics": FLAGS, "reduction": NAMES, "mode": NAMES, "side": NAMES,
    "approximate": NAMES, "generator": [(0, "0"), ("x", "'x'")], "eps": [(-1.0, "-1.0"), *NUMBERS],
    "p": [(1.5, "1.5"), ("x", "")], "dropout": [(1.0, "1.0"), *NUMBERS], "delta": [(0, "0"), *NUMBERS],
    "label_smoothing": [(1.5, "1.5"), *NUMBERS], "ignore_index": INTEGERS, "ddof": NUMBERS,
    "ord": [(0, "0"), ("fro", "'fro'"), (X, "shape (2, 3)")], "decimals": INTEGERS, "offset": INTEGERS, "k": INTEGERS,
    "num": NOT_NEGATIVE, "classes": NOT_NEGATIVE, "reps": NOT_NEGATIVE, "shift": INTEGERS, "sections": NOT_NEGATIVE,
    "repeats": [(-1, "-1"), (1.5, "float"), (X, "float64")], "pad_width": [(-1, "-1"), (1.5, "1.5"), ("x", "x")],
    "kernel_size": NOT_NEGATIVE, "stride": [(0, "0"), *NOT_NEGATIVE], "padding": NOT_NEGATIVE,
    "dilation": [(0, "0"), *INTEGERS], "groups": [(0, "0"), *INTEGERS], "visible": [("x", "<U1"), (0.5, "float")],
    "dtype": [("flaot32", "'flaot32'"), (3, "3")], "min_val": NUMBERS, "max_val": NUMBERS, "n": NOT_NEGATIVE,
    "low": NUMBERS, "high": NUMBERS, "std": [(-1, "-1"), *NUMBERS], "start": NUMBERS, "step": [(0, "0"), *NUMBERS],
}  # fmt: skip
OTHER_MEANING = {("batch_norm", "mean"), ("roll", "axis"), ("scatter", "source"), ("scatter_add", "source")}
OTHER_MEANING |= {("index_add", "source"), ("scaled_dot_product_attention", "k")}


def call_of(row):
    """Return arguments and keywords for the public function of a row."""
    if row.name in CALLS:
        return CALLS[row.name], {}
    samples = [s for s in row.samples if any(isinstance(a, tuple) and len(a) > 1 for a in s.arguments)]
    sample = max(samples or row.samples, key=lambda s: len(s.arguments))
    arrays = iter(row.arrays(sample))
    given = [next(arrays) if isinstance(a, tuple) else a for a in sample.arguments]
    arguments = [tl.Tensor(a) if isinstance(a, np.ndarray) else a for a in given]
    return arguments, {k: tl.Tensor(v) if isinstance(v, np.ndarray) else v for k, v in sample.keywords.items()}


def mistakes(row):
    """Yield (description of the mistake, arguments, keywords, text that the message must contain)."""
    arguments, keywords = call_of(row)
    parameters = list(inspect.signature(getattr(tl, row.name)).parameters.values())
    tensors = [i for i, a in enumerate(arguments) if isinstance(a, tl.Tensor)]
    for i in tensors:
        for wrong, fragment in NOT_TENSORS:
            if not (
                row.name == "permutation" or (wrong is None and parameters[min(i, len(parameters) - 1)].default is None)
            ):
                yield f"argument {i} = {wrong!r}", [*arguments[:i], wrong, *arguments[i + 1 :]], keywords, fragment
    for i in tensors[1:]:
        moved = tl.Tensor(arguments[i], backend=STRICT)
        yield f"argument {i} on another backend", [*arguments[:i], moved, *arguments[i + 1 :]], keywords, "strict"
    for i, p in enumerate(parameters):
        if (row.name, p.name) in OTHER_MEANING or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        for wrong, fragment in OPTIONS.get(p.name, []):
            if i < len(arguments):
                yield f"{p.name} = {wrong!r}", [*arguments[:i], wrong, *arguments[i + 1 :]], keywords, fragment
            else:
                yield f"{p.name} = {wrong!r}", arguments, {**keywords, p.name: wrong}, fragment


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_the_error_is_one_line_with_the_function_and_the_value(row):
    function = getattr(tl, row.name)
    unclear = []
    for what, arguments, keywords, fragment in mistakes(row):
        try:
            y = function(*arguments, **keywords)
        except (TypeError, ValueError, IndexError) as error:
            message = str(error)
            if not message.startswith(f"{row.name}: ") or "\n" in message or fragment not in message:
                unclear.append(f"{what}: {message}")
        else:
            unclear.append(f"{what}: no error, but {str(y)[:60]}")
    assert not unclear, "\n".join(unclear)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_an_unknown_option_is_named(row):
    arguments, keywords = call_of(row)
    with pytest.raises(TypeError, match=rf"{row.name}\(\) got an unexpected keyword argument 'dim'"):
        getattr(tl, row.name)(*arguments, **keywords, dim=0)


# ---- names of PyTorch ---------------------------------------------------------------------------------------------


class Lazy(nn.Module):
    @property
    def width(self):
        return self.wdith


WORDS = [
    (lambda: X.view(3, 2), r"Tensor has no attribute 'view'; use x.reshape\(shape\)"),
    (lambda: X.unsqueeze(0), r"'unsqueeze'; use tl.expand_dims\(x, axis\)"),
    (lambda: X.cuda(), r"'cuda'; use x.to\('cupy'\)"),
    (lambda: X.zero_(), r"'zero_'; use x.grad = None, or optimizer.zero_grad\(\)"),
    (lambda: X.add_(1), r"'add_'; a Tensor is never changed in place: write x = x.add\("),
    (lambda: X.summ(), "'summ'; did you mean sum"),
    (lambda: X.__cuda_array_interface__, "a Tensor on backend 'numpy' has no __cuda_array_interface__"),
    (lambda: tl.cat([X, X]), "tensorlib has no attribute 'cat'; use tl.concatenate"),
    (lambda: tl.hstack([X, X]), r"'hstack'; use tl\.concatenate\(xs, axis=1\), or axis=0 for vectors"),
    (lambda: tl.relu6(X), r"'relu6'; use tl\.hardtanh\(x, 0, 6\)$"),
    (lambda: X.hypot(Y), r"Tensor has no attribute 'hypot'; use tl\.norm\(tl\.stack\(\[x, y\]\), axis=0\)$"),
    (lambda: X.inverse(), r"'inverse'; use numpy\.linalg\.inv\(x\.numpy\(\)\), which has no gradient"),
    (lambda: X.new_zeros(3), r"'new_zeros'; use tl\.zeros\(shape, x\.dtype\)"),
    (
        lambda: tl.autograd.set_detect_anomaly(True),
        r"'autograd'; use tl\.grad, .* tl\.debug\(\) for its detect_anomaly",
    ),
    (lambda: tl.vmap(tl.exp), "'vmap'; use the function itself, on arrays with an axis in front for the batch"),
    (lambda: tl.Variable(X), r"'Variable'; use tl\.Tensor\(data, requires_grad=True\)"),
    (lambda: nn.GroupNorm(2, 4), r"'GroupNorm'; use tl\.layer_norm\(.*\) in forward"),
    (lambda: nn.ReLU6(), r"'ReLU6'; use tl\.hardtanh\(x, 0, 6\) in forward"),
    (lambda: optim.LBFGS([X]), "'LBFGS'; use optim.Adam, or scipy.optimize.minimize with gradients from tl.grad"),
    (lambda: nn.Linear(3, 2).in_features, r"'in_features'; use layer\.weight\.shape\[0\]"),
    (lambda: nn.Linear(3, 2).out_features, r"'out_features'; use layer\.weight\.shape\[1\]"),
    (lambda: nn.init.constant_(X, 0), r"'constant_'; use w\.replace\(numpy\.full\("),
    (lambda: tl.lobpcg(X), r"tensorlib has no attribute 'lobpcg'$"),
    (lambda: tl.svae("x", {}), "'svae'; did you mean save"),
    (lambda: tl.sotfmax(X), "'sotfmax'; did you mean softmax"),
    (lambda: tl.tensor([1.0]), "tensorlib has no attribute 'tensor'; use tl.Tensor"),
    (lambda: tl.empty((2, 3)), r"'empty'; use tl\.zeros\(shape\)"),
    (lambda: nn.BatchNorm2d(3), r"'BatchNorm2d'; use tl\.batch_norm, with an nn\.Buffer for each running statistic"),
    (lambda: nn.Adam([X]), "nn has no attribute 'Adam'; use nn.optim.Adam"),
    (lambda: nn.TransformerEncoderLayer(8, 2), "use models.Transformer, or nn.MultiHeadAttention"),
    (lambda: nn.functional.linear(X, Y), r"'linear'; use tl\.linear\(x, weight, bias\), whose weight is \(in, out\)"),
    (lambda: nn.functional.max_pool2d(X, 2), "'max_pool2d'; use tl.max_pool"),
    (lambda: nn.init.xavier_uniform_(X), r"'xavier_uniform_'; use w\.replace\(init\.xavier_uniform\("),
    (lambda: optim.lr_scheduler, "nn.optim has no attribute 'lr_scheduler'; use nn.schedules"),
    (lambda: optim.RMSprop([X]), "'RMSprop'; use optim.Adam"),
    (lambda: nn.Linear(3, 2).register_buffer("x", X), r"'register_buffer'; use model\.name = nn\.Buffer\(x\)"),
    (lambda: nn.ReLU(), "nn has no attribute 'ReLU'; use tl.relu"),
    (lambda: nn.functional.softmax(X), r"'softmax'; use tl.softmax\(...\), with axis= for dim="),
    (lambda: nn.Linear(3, 2).cuda(), r"Linear has no attribute 'cuda'; use model.to\('cupy'\)"),
    (lambda: nn.Linear(3, 2).wieght, "'wieght'; did you mean weight"),
    (lambda: Lazy().width, "Lazy has no attribute 'wdith'; did you mean width"),
]


@pytest.mark.parametrize(("use", "message"), WORDS)
def test_a_name_of_pytorch_leads_to_the_name_here(use, message):
    with pytest.raises(AttributeError, match=message):
        use()


def test_a_shape_in_the_constructor_leads_to_zeros():
    with pytest.raises(TypeError, match=r"requires_grad must be True or False, got 4; for a shape use tl\.zeros"):
        tl.Tensor(3, 4)


def test_lr_leads_to_learning_rate():
    with pytest.raises(TypeError, match=r"Adam: lr is called learning_rate, got lr=0.1"):
        optim.Adam(nn.Linear(3, 2).parameters(), lr=0.1)


ATTENTION = nn.MultiHeadAttention(4, 2)

KEYWORDS = [
    (lambda: X.sum(dim=0), r"sum\(\) got an unexpected keyword argument 'dim'; it is called axis here"),
    (lambda: X.mean(axis=0, keepdim=True), r"mean\(\) .* 'keepdim'; it is called keepdims here"),
    (lambda: tl.softmax(X, dim=-1), r"softmax\(\) .* 'dim'; it is called axis here"),
    (lambda: X.std(unbiased=False), "'unbiased'; it is called ddof here"),
    (lambda: tl.norm(X, p=2), "'p'; it is called ord here"),
    (lambda: X.flatten(start_dim=1), "'start_dim'; it is called start_axis here"),
    (lambda: tl.concatenate([X, X], dim=1), "'dim'; it is called axis here"),
    (lambda: tl.cross_entropy(X, target=IDS), "'target'; it is called targets here"),
    (lambda: tl.cross_entropy(X, IDS, weight=X[0]), "'weight'; multiply the losses of reduction='none'"),
    (lambda: tl.scaled_dot_product_attention(X, X, X, attn_mask=None), "'attn_mask'; it is called visible here"),
    (lambda: tl.scaled_dot_product_attention(X, X, X, is_causal=True), "'is_causal'; it is called causal here"),
    (lambda: tl.scaled_dot_product_attention(X, X, X, dropout_p=0.0), "'dropout_p'; it is called dropout here"),
    (lambda: tl.layer_norm(X, normalized_shape=(3,)), "'normalized_shape'; leave it out: the last axis is normalized"),
    (lambda: tl.dropout(X, 0.5, training=True), "'training'; leave it out: tl.dropout always drops"),
    (lambda: tl.zeros((2, 3), device="cuda"), "'device'; it is called backend here"),
    (lambda: tl.normal(size=(2, 3)), "'size'; it is called shape here"),
    (lambda: tl.zeros((2, 3), requires_grad=True), r"'requires_grad'; set x\.requires_grad = True"),
    (lambda: tl.Tensor([1.0], device="cuda"), "'device'; it is called backend here"),
    (lambda: nn.Parameter([1.0], requires_grad=False), r"'requires_grad'; set x.* nn\.Buffer\(x\) is not trained"),
    (lambda: nn.Linear(in_features=3, out_features=2), r"Linear\(\) .* 'in_features'; it is called in_width here"),
    (lambda: nn.Embedding(5, embedding_dim=2), "'embedding_dim'; it is called width here"),
    (lambda: nn.LayerNorm(normalized_shape=4), "'normalized_shape'; it is called width here"),
    (lambda: nn.MultiHeadAttention(4, num_heads=2), "'num_heads'; it is called heads here"),
    (lambda: nn.MultiHeadAttention(4, 2, batch_first=True), "'batch_first'; leave it out: the batch is the first axis"),
    (lambda: nn.Linear(3, 2, device="cuda"), r"'device'; leave it out, and call \.to\('cupy'\)"),
    (lambda: nn.CrossEntropyLoss(weight=X[0]), "'weight'; multiply the losses of reduction='none'"),
    (lambda: ATTENTION(X, attn_mask=MASK), r"MultiHeadAttention.forward\(\) .* 'attn_mask'; it is called visible here"),
    (lambda: ATTENTION(X, key_padding_mask=MASK), r"'key_padding_mask'; pass visible=, .*: ~mask"),
    (lambda: ATTENTION(X, need_weights=True), "'need_weights'; it is called return_weights here"),
    (lambda: optim.Adam(params=[nn.Parameter([1.0])]), r"Adam\(\) .* 'params'; it is called parameters here"),
    (lambda: optim.Adam([nn.Parameter([1.0])], amsgrad=True), "'amsgrad'; leave it out"),
    (lambda: optim.Adam([nn.Parameter([1.0])], capturable=True), "'capturable'; leave it out: each optimizer may be"),
    (lambda: optim.LossScale(init_scale=8.0), r"LossScale.__init__\(\) .* 'init_scale'; it is called first here"),
    (lambda: optim.LossScale(growth_interval=9), "'growth_interval'; it is called grow_after here"),
    (lambda: tl.capture(len, mode="max-autotune"), r"capture\(\) .* 'mode'; leave it out"),
    (lambda: leaf().sum().backward(create_graph=True), r"backward\(\) .* 'create_graph'; call tl\.grad\(y, xs, create"),
    (lambda: leaf().sum().backward(inputs=[leaf()]), r"backward\(\) .* 'inputs'; call tl\.grad\(y, inputs\)"),
    (lambda: tl.grad(leaf().sum(), leaf(), is_grads_batched=True), "'is_grads_batched'; call tl.grad for each"),
    (lambda: tl.gradcheck(tl.exp, X, eps=1e-6), r"gradcheck\(\) .* 'eps'; it is called step here"),
    (lambda: tl.gradcheck(tl.exp, X, atol=1e-4), r"gradcheck\(\) .* 'atol'; it is called tolerance here"),
]  # fmt: skip


@pytest.mark.parametrize(("use", "message"), KEYWORDS)
def test_a_keyword_of_pytorch_leads_to_the_one_here(use, message):
    with pytest.raises(TypeError, match=message) as caught:
        use()
    assert (caught.value.__cause__ is None and caught.value.__suppress_context__) or caught.value.__context__ is None


NAMES_FOR_GPUS = [
    (lambda: tl.autocast, "tensorlib has no attribute 'autocast'; use tl.precision, as in `with tl.precision"),
    (lambda: tl.amp, "'amp'; use tl.precision, .*for fp16 also nn.optim.LossScale"),
    (lambda: tl.bfloat16, "'bfloat16'; use tl.precision, .*Tensors stay float32"),
    (lambda: X.bfloat16(), "'bfloat16'; use tl.precision, .*Tensors stay float32"),
    (lambda: nn.Linear(2, 2).bfloat16(), "'bfloat16'; use tl.precision, .*weights stay float32"),
    (lambda: tl.backends, r"'backends'; use tl.precision, as in `with tl.precision\('tf32'\)"),
    (lambda: tl.set_float32_matmul_precision, r"use tl.precision, as in `with tl.precision\('tf32'\)"),
    (lambda: tl.GradScaler, "'GradScaler'; use nn.optim.LossScale"),
    (lambda: optim.GradScaler, "nn.optim has no attribute 'GradScaler'; use optim.LossScale"),
    (lambda: optim.AveragedModel, "'AveragedModel'; use nn.averaging.ExponentialMovingAverage"),
    (
        lambda: optim.LossScale().step,
        r"LossScale has no attribute 'step'; use optim.guarded_step\(optimizer, loss, loss_",
    ),
    (lambda: optim.LossScale().unscale_, "'unscale_'; use optim.guarded_step, which clips"),
    (lambda: optim.LossScale().get_scale(), "'get_scale'; use scale.value"),
    (lambda: optim.LossScale().vaule, "'vaule'; did you mean value"),
    (lambda: tl.jit, "'jit'; use tl.capture, which records"),
    (lambda: tl.compile, "'compile'; use tl.capture, .*; there is no compiler"),
    (lambda: nn.Linear(2, 2).compile(), "'compile'; use tl.capture, which records"),
    (lambda: tl.CUDAGraph, "'CUDAGraph'; use tl.capture, which records"),
]


@pytest.mark.parametrize(("use", "message"), NAMES_FOR_GPUS)
def test_a_name_of_pytorch_for_gpus_leads_to_the_one_here(use, message):
    with pytest.raises(AttributeError, match=message):
        use()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("cuda:0", "; use 'cuda', and CUDA_VISIBLE_DEVICES=0 to choose the GPU"),
        ("cuda:12", "; use 'cuda', and CUDA_VISIBLE_DEVICES=12 to choose the GPU"),
        ("cpu:0", "; use 'cpu'"),
        ("mps:0", ""),
        ("cuda:x", ""),
    ],
)
def test_a_device_of_pytorch_leads_to_a_backend(name, remedy):
    for use in (tl.get_backend, X.to, nn.Linear(2, 2).to, lambda name: tl.zeros(2, backend=name)):
        with pytest.raises(ValueError, match=rf"^backend: must be one of .*; got '{name}'{remedy}$"):
            use(name)


class Dimensional(nn.Module):
    """A user's module, whose own keywords are none of PyTorch's business."""

    def __init__(self, dim, **options):
        self.dim, self.options = dim, options

    def forward(self, x, dim):
        return x.sum(dim=dim)  # a mistake deeper inside


def broken(x, axis=0):
    raise TypeError("other() got an unexpected keyword argument 'dim'")


def test_only_the_call_itself_is_answered():
    from tensorlib.pytorch_words import answering

    assert Dimensional(dim=3, size=4).options == {"size": 4}
    with pytest.raises(TypeError, match=r"^sum\(\) got an unexpected keyword argument 'dim'; it is called axis here$"):
        Dimensional(dim=3)(X, dim=1)
    with pytest.raises(TypeError, match=r"argument 'dim'$"):
        answering(broken)(X)
    with pytest.raises(TypeError, match=r"argument 'dimm'$"):
        X.sum(dimm=0)


def test_answers_change_neither_signatures_nor_identities():
    assert list(inspect.signature(tl.sum).parameters) == ["x", "axis", "keepdims"]
    assert inspect.getsourcefile(inspect.unwrap(tl.sum)).endswith("reduce.py")
    assert tl.Tensor.sum is tl.sum is pickle.loads(pickle.dumps(tl.sum)) and tl.sum.__doc__
    assert not hasattr(tl.add, "__wrapped__") and not hasattr(tl.linear, "__wrapped__")  # the hot path


def test_keywords_that_are_recommended_exist():
    from tensorlib.pytorch_words import _KEYWORDS

    owners = [tl, nn, optim]
    public = [getattr(m, name) for m in owners for name in (m.__all__ if hasattr(m, "__all__") else dir(m))]
    functions = [f for f in public if inspect.isfunction(f) or inspect.isclass(f)]
    known = {p for f in functions if f.__module__ != "builtins" for p in parameters_of(f)}
    known |= parameters_of(nn.MultiHeadAttention.forward)
    assert not {ours for words in _KEYWORDS.values() for ours in words.split()} - known


def parameters_of(function):
    try:
        return {*inspect.signature(function).parameters}
    except ValueError:
        return set()


@pytest.mark.peers
def test_what_is_recommended_computes_what_pytorch_computes():
    torch = pytest.importorskip("torch")
    from tensorlib.pytorch_words import TENSOR_NAMES

    a, b = np.array([[0.5, -0.75], [1.0, 0.25]]), np.array([[2.0, 1.0], [-0.5, 0.75]])
    names = {"tl": tl, "np": np, "x": tl.Tensor(a), "y": tl.Tensor(b)}
    compared = set()
    for name, text in TENSOR_NAMES.items():
        for arguments in ((torch.tensor(b),), ()):
            try:
                expected = getattr(torch.tensor(a), name)(*arguments)
                found = eval(text, names)
            except Exception:
                continue  # it takes other arguments, or the text is not an expression of x and y alone
            if (
                isinstance(expected, torch.Tensor)
                and isinstance(found, tl.Tensor)
                and name not in ("acos", "asin", "pow")
            ):
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6, err_msg=name)
                compared.add(name)
            break
    assert len(compared) > 20 and {"fmod", "atan2", "div", "ge", "mm", "neg"} <= compared


class Foreign:
    """An array of another library, by its attributes: like torch.Tensor, it looks much like a Tensor."""

    dtype, requires_grad, grad, device, __dlpack__ = object(), False, None, "cpu", None

    def __init__(self, shape=(2, 3)):
        self.shape, self.ndim, self.size = shape, len(shape), int(np.prod(shape))


def test_an_array_of_another_library_is_refused():
    for use, name in ((lambda x: tl.exp(x), "exp"), (lambda x: X + x, "add"), (lambda x: tl.mean(x), "mean")):
        with pytest.raises(TypeError, match=rf"{name}: needs an array of NumPy or CuPy, got .*Foreign; tl.from_dlpack"):
            use(Foreign())


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_an_operand_of_another_library_is_refused_at_every_position(row):
    arguments, keywords = call_of(row)
    for i, argument in enumerate(arguments):
        if isinstance(argument, tl.Tensor) and row.name != "permutation":
            with pytest.raises(TypeError, match=rf"{row.name}: .* got tests\.Foreign"):
                foreign = Foreign(argument.shape)
                getattr(tl, row.name)(*arguments[:i], foreign, *arguments[i + 1 :], **keywords)


def test_the_constructor_copies_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    theirs = torch.arange(6.0).reshape(2, 3).T
    ours = tl.Tensor(theirs)
    theirs[0, 0] = 7
    np.testing.assert_array_equal(ours.numpy(), [[0, 3], [1, 4], [2, 5]])
    assert ours.dtype == np.float32 and tl.Tensor(torch.tensor([True, False])).dtype == bool
    assert nn.Parameter(torch.ones(2, dtype=torch.float64)).dtype == np.float64
    with pytest.raises(BufferError, match=r"Tensor: torch\.Tensor cannot be shared: .*, use tensor\.detach"):
        tl.Tensor(torch.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match=r"Tensor: dtype must be numeric, such as 'float32' .* got torch\.float64"):
        tl.Tensor([1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"got torch\.float64; x\.astype\(dtype\) converts"):
        ours.to(torch.float64)


# ---- gradients, transforms, hooks and custom ops ------------------------------------------------------------------


def leaf():
    return tl.Tensor([1.0, 2.0, 3.0], requires_grad=True)


class Returns(tl.Function):
    def forward(self, x, what):
        return what

    def backward(self, dy):
        return dy


class Both(tl.Function):
    """Both methods call a function of Tensors, whose result on arrays is a constant Tensor."""

    def forward(self, x, wrong):
        self.wrong = wrong
        return tl.exp(x) if wrong == "forward" else x * 2

    def backward(self, dy):
        return tl.exp(dy) if self.wrong == "backward" else dy


class Pairwise(tl.Function):
    def forward(self, x, y):
        return x + y

    def backward(self, dy):
        return dy, dy


class Fails(tl.Function):
    def forward(self, x):
        raise ValueError("too late")


class SavesAsInPyTorch(tl.Function):
    def forward(self, x):
        self.save_for_backward(x)
        return x


def define_as_in_pytorch():
    class Twice(tl.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2


def hooked(x):
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(lambda module, args, output: output.data)
    return layer(x)


ENGINE = [
    (lambda: tl.grad(2.5, leaf()), TypeError, r"grad: every output must be a Tensor, got 2.5; call grad\(outputs"),
    (lambda: tl.grad(leaf().sum(), np.ones(3)), TypeError, r"grad: every input must be a Tensor, got a ndarray of .*3"),
    (lambda: tl.checkpoint(leaf()), TypeError, r"checkpoint: .* must be a function, .* got a Tensor of shape \(3,\)"),
    (
        lambda: tl.vjp(leaf(), tl.exp),
        TypeError,
        r"vjp: .* must be a function, .* got a Tensor of shape \(3,\)",
    ),
    (lambda: Returns.apply(leaf(), what=[1.0]), TypeError, r"returns: forward must return an array, .* got \[1.0\]"),
    (lambda: Returns.apply(leaf(), what=None), TypeError, "returns: forward must .* got None; is its return missing"),
    (lambda: Returns.apply(tl.ones(3), what=None), TypeError, "returns: forward must return an array, .* got None"),
    (lambda: Returns.apply(tl.ones(3), what=3.0), TypeError, "returns: forward must return an array, .* got 3.0; use"),
    (
        lambda: Both.apply(leaf(), wrong="forward"),
        TypeError,
        r"both: forward must .*, got a Tensor .* or return y\.data",
    ),
    (lambda: Both.apply(tl.ones(3), wrong="forward"), TypeError, r"both: forward must return an array, .*got a Tensor"),
    (lambda: Returns.apply(leaf(), what=(np.ones(1), leaf())), TypeError, r"returns: forward must .*, got a Tensor"),
    (
        lambda: Both.apply(leaf(), wrong="backward").sum().backward(),
        TypeError,
        r"both: backward must .*, got a Tensor .*; compute with functions of tl\.namespace_of\(x\)",
    ),
    (
        lambda: Pairwise.apply(leaf().reshape((1, 3)), leaf()).sum().backward(),
        RuntimeError,
        r"pairwise: gradient for input 1 .* \(3,\), got \(1, 3\); if its inputs broadcast, set broadcasts = True",
    ),
    (lambda: Fails.apply(leaf()), ValueError, r"^fails: too late \(operands of shape \(3,\)\)$"),
    (lambda: SavesAsInPyTorch().saved_tensors, AttributeError, r"'saved_tensors'; use self\.saved"),
    (lambda: SavesAsInPyTorch.apply(leaf()), AttributeError, r"'save_for_backward'; use self.save\(...\)"),
    (
        define_as_in_pytorch,
        TypeError,
        "Twice: forward must be a method, got a static.*; .* self in place of",
    ),
    (lambda: hooked(leaf()), TypeError, "Linear: a forward hook must return None or a Tensor .* got numpy.ndarray"),
]


@pytest.mark.parametrize(("use", "error", "message"), ENGINE)
def test_mistakes_with_gradients_and_custom_ops(use, error, message):
    with pytest.raises(error, match=message):
        use()


def test_the_explanation_of_a_zero_gradient_ends_where_it_became_zero():
    x = leaf()
    with tl.debug():
        y = x
        for _ in range(8):
            y = tl.tanh(y)
        loss = (y * 0.0).sum()
    text = str(tl.explain(x, loss))
    assert "zeroed by multiply" in text and "and zero through 8 more ops" in text and "tanh" not in text


CLASSES = {  # np.float32 has a shape and a dtype, which are not those of an array
    "np.sum": lambda x: np.sum(x, dtype=np.float32), "np.mean": lambda x: np.mean(x, dtype=np.float32),
    "np.add": lambda x: np.add(np.ones(2), x, dtype=np.float32), "ones": lambda x: tl.ones(np.float32),
    "sum": lambda x: tl.sum(x, axis=np.float32), "softmax": lambda x: tl.softmax(x, np.float32),
    "grad": lambda x: tl.grad(x.sum(), np.float32), "full": lambda x: tl.full(2, np.float32),
    "tril": lambda x: tl.tril(x[None], np.float32), "expand_dims": lambda x: tl.expand_dims(x, np.float32),
    "concatenate": lambda x: tl.concatenate(np.float32), "stack": lambda x: tl.stack(np.float32),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_in_place_of_a_value_is_named(name):
    with pytest.raises(TypeError, match=rf"^{name}: .*<class 'numpy\.float32'>"):
        CLASSES[name](tl.Tensor([1.0, 2.0], requires_grad=True))
    with pytest.raises(TypeError, match=r"^ones: .*<class 'tensorlib\.tensor\.Tensor'>"):
        tl.ones(tl.Tensor)


SMALL = tl.Tensor(np.array([200], "u1"))
TOO_LARGE = {  # NumPy's number counts as Python's, so the result has the dtype of the Tensor
    "add": lambda: SMALL + np.int64(300), "subtract": lambda: 300 - SMALL, "multiply": lambda: np.int64(300) * SMALL,
    "bitwise_and": lambda: SMALL & 300, "maximum": lambda: tl.maximum(SMALL, 300), "clip": lambda: SMALL.clip(0, 300),
    "floor_divide": lambda: SMALL // 300, "remainder": lambda: 300 % SMALL, "power": lambda: SMALL**300,
    "where": lambda: tl.where(SMALL > 1, SMALL, 300),
    "masked_fill": lambda: SMALL.masked_fill(SMALL > 1, np.int64(300)),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LARGE)
def test_an_integer_that_does_not_fit_is_an_error_and_no_other_integer(name):
    with pytest.raises(ValueError, match=rf"^{name}: dtype uint8 cannot hold 300; use x\.astype\('int64'\)$"):
        TOO_LARGE[name]()


def test_numbers_that_fit_keep_the_dtype_and_those_beyond_every_integer_are_named():
    assert (SMALL + np.int64(55)).numpy().tolist() == [255] and (SMALL + np.int64(55)).dtype == np.uint8
    assert tl.where(SMALL > 1, 255, SMALL).numpy().tolist() == [255] and (SMALL < 300).numpy().all()
    assert tl.where(SMALL > 1, 0.5, SMALL).numpy().tolist() == [0.5]
    for x in (SMALL, tl.Tensor([1])):
        with pytest.raises(ValueError, match=rf"^add: dtype {x.dtype} cannot hold 1180.*; use x\.astype\('float64'\)$"):
            x + 2**70
    with pytest.raises(ValueError, match=r"^multiply: dtype float32 cannot hold 1000.*; pass a float$"):
        tl.Tensor([1.0]) * 10**400
