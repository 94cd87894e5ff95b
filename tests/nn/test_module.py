"""Module: attributes are the registry, names are paths, loading is all or nothing."""

import copy
import pickle
from itertools import count

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from tests.edges import refused


class Pair(nn.Module):
    """Two linear layers, a parameter and a buffer that is not in checkpoints."""

    def __init__(self):
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 2, bias=False)
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.table = nn.Buffer(np.zeros(2, np.float32), persistent=False)

    def forward(self, x):
        return self.second(tl.relu(self.first(x))) * self.scale + self.table


class Tree(nn.Module):
    def __init__(self):
        self.trunk = nn.Linear(2, 2)
        self.branches = nn.ModuleList(Pair() for _ in range(2))

    def forward(self, x):
        x = self.trunk(x)
        for branch in self.branches:
            x = branch(x)
        return x


TREE_NAMES = [
    "trunk.weight",
    "trunk.bias",
    *[f"branches.{i}.{n}" for i in (0, 1) for n in ("scale", "first.weight", "first.bias", "second.weight")],
]


def names(module):
    return [name for name, _ in module.named_parameters()]


# ---- names ----


def test_attributes_register_under_their_path_from_the_root():
    tree = Tree()
    assert names(tree) == TREE_NAMES
    assert [p.name for p in tree.parameters()] == TREE_NAMES
    assert [path for path, _ in tree.named_modules()] == [
        "", "trunk", "branches", "branches.0", "branches.0.first", "branches.0.second",
        "branches.1", "branches.1.first", "branches.1.second",
    ]  # fmt: skip
    assert tree.parameter_count() == 6 + 2 * (2 + 9 + 6)
    assert "branches.0.table" not in tree.state_dict()


def test_modules_and_parameters_attached_later_are_named_from_the_root():
    tree = Tree()
    tree.branches.append(Pair())
    tree.branches[2].first.extra = nn.Parameter(np.zeros(1, np.float32))
    assert tree.branches[2].second.weight.name == "branches.2.second.weight"
    assert tree.branches[2].first.extra.name == "branches.2.first.extra"
    assert [p.name for p in tree.parameters()] == names(tree)
    grove = nn.ModuleList([Tree(), tree])
    assert tree.branches[2].first.extra.name == "1.branches.2.first.extra"
    assert [p.name for p in grove.parameters()] == names(grove)


def test_replacing_or_removing_an_attribute_unregisters_the_old_value():
    pair = Pair()
    pair.scale = nn.Parameter(np.zeros(5, np.float32))
    pair.first = None
    del pair.second
    assert {name: p.shape for name, p in pair.named_parameters()} == {"scale": (5,)}


@pytest.mark.parametrize("share", ["parameter", "module"])
def test_tied_parameters_come_once_under_their_first_name(share):
    tree = Tree()
    if share == "parameter":
        tree.branches[1].first.weight = tree.branches[0].first.weight
        gone = {"branches.1.first.weight"}
    else:
        tree.branches[1].first = tree.branches[0].first
        gone = {"branches.1.first.weight", "branches.1.first.bias"}
    assert set(names(tree)) == set(TREE_NAMES) - gone
    assert [p.name for p in tree.parameters()] == names(tree)
    assert tree.branches[1].first.weight is tree.branches[0].first.weight
    assert list(tree.state_dict()) == names(tree)
    tree.load_state_dict(tree.state_dict())
    assert tree.branches[1].first.weight is tree.branches[0].first.weight


def test_a_parameter_or_module_is_not_lost_to_an_assignment_by_mistake():
    pair = Pair()
    with pytest.raises(TypeError, match=r"Pair\.scale: must stay a Parameter, got numpy\.ndarray; use nn"):
        pair.scale = np.ones(2)
    with pytest.raises(TypeError, match=r"Pair\.first: must stay a Module, got float; del it first"):
        pair.first = 3.0
    assert names(pair) == names(Pair())
    with pytest.raises(AttributeError, match="frist"):
        pair.frist  # noqa: B018


def test_modules_added_to_a_plain_list_later_are_refused_when_parameters_are_listed():
    tree = Tree()
    tree.layers = []
    tree.layers.append(nn.Linear(1, 1))
    for look in (tree.state_dict, lambda: list(tree.parameters()), lambda: optim.SGD(tree.parameters(), 0.1)):
        with pytest.raises(
            TypeError, match=r"Tree\.layers: .* would not be found by parameters\(\); use nn\.ModuleList"
        ):
            look()


def test_a_module_in_a_list_has_its_own_state():
    tree = Tree()
    branch = tree.branches[1]
    assert list(branch.state_dict()) == names(Pair())
    branch.load_state_dict(tree.branches[0].state_dict())
    np.testing.assert_array_equal(branch.scale.numpy(), tree.branches[0].scale.numpy())


@pytest.mark.parametrize("container", [list, tuple, lambda x: {"a": x[0]}, lambda x: [[x[0]], []], lambda x: {x[0]}])
def test_modules_in_a_plain_container_are_refused(container):
    with pytest.raises(TypeError, match=r"Tree\.layers: .* would not be found by parameters\(\); use nn.ModuleList"):
        Tree().layers = container([nn.Linear(1, 1)])
    with pytest.raises(TypeError, match="plain list"):
        Tree().layers = [nn.Parameter(np.zeros(1, np.float32))]


def test_a_parameter_needs_a_floating_dtype_and_a_module_a_forward():
    with pytest.raises(TypeError, match="int64"):
        nn.Parameter(np.arange(3))
    with pytest.raises(NotImplementedError, match="Module: forward is missing"):
        nn.Module()(1)


# ---- containers ----


def test_module_list_is_a_list_and_sequential_a_chain():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert len(layers) == 2 and list(layers)[1] is layers[1] is layers[-1]
    assert names(layers) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(TypeError, match="ModuleList: holds modules, got int"):
        layers.append(3)
    with pytest.raises(IndexError):
        layers[2]
    chain = nn.Sequential(layers[0], layers[1])
    x = tl.Tensor([[1.0, -2.0]])
    np.testing.assert_array_equal(chain(x).numpy(), layers[1](layers[0](x)).numpy())
    assert len(nn.ModuleList()) == 0 and names(nn.ModuleList()) == []


# ---- state ----


def test_state_dict_is_a_copy_and_loading_copies_too():
    pair = Pair()
    state = pair.state_dict()
    before = state["scale"].copy()
    pair.scale.replace(pair.scale.data + 1)
    np.testing.assert_array_equal(state["scale"], before)
    state["scale"][:] = 7
    assert not np.any(pair.scale.numpy() == 7)
    pair.load_state_dict(state)
    state["scale"][:] = 8
    np.testing.assert_array_equal(pair.scale.numpy(), 7)


def test_loading_takes_arrays_or_tensors_keeps_dtype_and_identity_and_raises_the_version():
    pair, other = Pair(), Pair()
    weight, version = pair.first.weight, pair.first.weight.version
    pair.load_state_dict({name: tl.Tensor(a, dtype="float64") for name, a in other.state_dict().items()})
    assert pair.first.weight is weight and weight.version > version
    assert {p.dtype for p in pair.parameters()} == {np.dtype("float32")}
    for mine, theirs in zip(pair.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
        assert not np.shares_memory(mine.numpy(), theirs.numpy())


def test_loading_reports_every_problem_at_once_and_then_changes_nothing():
    pair = Pair()
    before = pair.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["scale"], state["second.weight"]
    state["first.weight"] = np.zeros((3, 2))
    state["third.weight"] = np.zeros(1)
    with pytest.raises(ValueError) as caught:
        pair.load_state_dict(state)
    message = str(caught.value)
    for part in (
        "Pair does not fit", "missing scale", "missing second.weight", "unexpected third.weight",
        "first.weight must have shape (2, 3), got (3, 2)",
    ):  # fmt: skip
        assert part in message
    for name, array in pair.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_loading_that_is_not_strict_ignores_names_but_not_shapes():
    pair = Pair()
    pair.load_state_dict({"scale": np.full(2, 3.0), "stranger": np.zeros(1)}, strict=False)
    np.testing.assert_array_equal(pair.scale.numpy(), 3)
    with pytest.raises(ValueError, match=r"scale must have shape \(2,\), got \(4,\)"):
        pair.load_state_dict({"scale": np.zeros(4)}, strict=False)


def test_loading_returns_the_names_that_did_not_fit():
    pair = Pair()
    assert pair.load_state_dict(pair.state_dict()) == ([], [])
    keys = pair.load_state_dict({"scale": np.ones(2), "stranger": np.zeros(1)}, strict=False)
    assert keys.missing_keys == ["first.weight", "first.bias", "second.weight"]
    assert keys.unexpected_keys == ["stranger"]


@pytest.mark.parametrize("share", ["parameter", "module", "buffer"])
def test_a_state_may_name_what_is_tied_as_pytorch_does(share):
    """There each path of a tied parameter is a name of its own, with equal values."""
    tree = Tree()
    one, other = tree.branches[0], tree.branches[1]
    name = "first.weight"
    if share == "parameter":
        other.first.weight = one.first.weight
    elif share == "module":
        other.first = one.first
    else:
        name = "scale_factor"
        one.scale_factor = other.scale_factor = nn.Buffer(np.ones(2, np.float32))
    state = {n: array + 1 for n, array in tree.state_dict().items()}
    first, second = f"branches.0.{name}", f"branches.1.{name}"
    assert first in state and second not in state
    assert tree.load_state_dict({**state, second: state[first].copy()}) == ([], [])
    np.testing.assert_array_equal(tree.state_dict()[first], state[first])
    assert tree.load_state_dict({**{n: x for n, x in state.items() if n != first}, second: state[first]}) == ([], [])
    with pytest.raises(ValueError, match=rf"fit: {second} and {first} are one tensor here \(tied\), but .* differ$"):
        tree.load_state_dict({**state, second: state[first] + 1})
    np.testing.assert_array_equal(tree.state_dict()[first], state[first])


def test_a_module_that_holds_one_above_it_can_be_loaded():
    pair = Pair()
    pair.first.owner = pair
    assert pair.load_state_dict(pair.state_dict()) == ([], [])


def test_what_is_known_of_a_misfit_is_said():
    with pytest.raises(ValueError, match=r"weight must have .*\(2, 3\), got \(3, 2\) \(its transpose fits"):
        nn.Linear(2, 3).load_state_dict({"weight": np.ones((3, 2)), "bias": np.ones(3)})
    pair = Pair()
    with pytest.raises(ValueError, match=r"missing scale; .* the names begin with 'model\.', which must be removed"):
        pair.load_state_dict({f"model.{name}": array for name, array in pair.state_dict().items()})


def test_tensors_of_pytorch_are_not_loaded_because_a_square_weight_would_silently_be_transposed():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"weight is a torch\..*; pass x\.numpy\(\), or x\.numpy\(\)\.T for"):
        nn.Linear(2, 2).load_state_dict(theirs.state_dict())
    ours, state = nn.Linear(2, 2), {name: x.numpy() for name, x in theirs.state_dict().items()}
    ours.load_state_dict({"weight": state["weight"].T, "bias": state["bias"]})
    np.testing.assert_allclose(ours(tl.ones(2)).numpy(), theirs(torch.ones(2)).detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copied_module_is_independent(duplicate):
    tree = Tree()
    twin = duplicate(tree)
    twin.trunk.extra = nn.Parameter(np.zeros(1, np.float32))
    assert twin.trunk.extra.name == "trunk.extra"
    assert names(tree) == TREE_NAMES
    for name, parameter in tree.named_parameters():
        assert dict(twin.named_parameters())[name] is not parameter
        assert not np.shares_memory(dict(twin.named_parameters())[name].numpy(), parameter.numpy())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_tied_parameters_stay_tied_in_a_copy(duplicate):
    tree = Tree()
    tree.branches[1].first.weight = tree.branches[0].first.weight
    tree.trunk.weight.grad = tl.ones_like(tree.trunk.weight)
    tree.trunk.bias.requires_grad = False
    twin = duplicate(tree)
    assert twin.branches[1].first.weight is twin.branches[0].first.weight
    assert names(twin) == names(tree) and [p.name for p in twin.parameters()] == names(tree)
    assert all(type(p) is nn.Parameter for p in twin.parameters())
    np.testing.assert_array_equal(twin.trunk.weight.grad.numpy(), 1)
    assert twin.trunk.weight.requires_grad and not twin.trunk.bias.requires_grad
    assert type(twin.branches[0].table) is nn.Buffer and not twin.branches[0].table.persistent


def test_a_module_copied_on_a_backend_stays_there(backend):
    tree = Tree().to(backend)
    twin = copy.deepcopy(tree)
    assert all(p.backend is tl.get_backend(backend) for p in twin.parameters())
    twin.trunk.weight.replace(twin.trunk.weight.data * 2)
    assert not np.array_equal(twin.trunk.weight.numpy(), tree.trunk.weight.numpy())


def test_a_module_that_holds_a_computed_tensor_cannot_be_copied():
    pair = Pair()
    pair.last = pair(tl.zeros((1, 2)))
    with pytest.raises(RuntimeError, match=r"deepcopy: needs a leaf.* was computed by add; use x\.detach\(\)"):
        copy.deepcopy(pair)


# ---- hooks ----


def doubling(module, args, output):
    return output * 2


def test_a_forward_hook_sees_the_call_and_may_replace_the_output():
    linear, x = nn.Linear(2, 3), tl.Tensor([[1.0, 2.0]])
    plain = linear(x)
    seen = []
    first = linear.register_forward_hook(lambda *call: seen.append(call))
    second = linear.register_forward_hook(doubling)
    third = linear.register_forward_hook(lambda module, args, output: output + 1)  # sees the output of the second
    np.testing.assert_array_equal(linear(x).numpy(), (plain * 2 + 1).numpy())
    module, args, output = seen.pop()
    assert module is linear and args == (x,) and isinstance(args, tuple)
    np.testing.assert_array_equal(output.numpy(), plain.numpy())
    second.remove()
    np.testing.assert_array_equal(linear(x).numpy(), (plain + 1).numpy())
    first.remove(), third.remove(), first.remove()  # removing twice is allowed
    assert linear(x).numpy().tolist() == plain.numpy().tolist() and len(seen) == 1


def test_a_pre_hook_may_replace_the_arguments():
    pair, x = Pair(), tl.Tensor([[1.0, 2.0]])
    order = []
    pair.first.register_forward_pre_hook(lambda module, args: order.append(1))
    pair.first.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    pair.first.register_forward_pre_hook(lambda module, args: args[0] + 1)  # one value is taken as a tuple of one
    pair.first.register_forward_hook(lambda module, args, output: order.append(args[0].numpy().tolist()))
    np.testing.assert_array_equal(pair.first(x).numpy(), nn.functional_call(copy_of(pair.first), {}, x * 2 + 1).numpy())
    assert order == [1, [[3.0, 5.0]]]


def copy_of(linear):
    """Return a layer with the same values and no hooks."""
    twin = nn.Linear(*linear.weight.shape)
    twin.load_state_dict(linear.state_dict())
    return twin


def test_keyword_arguments_bypass_pre_hooks():
    attention = nn.MultiHeadAttention(4, 2)
    attention.register_forward_pre_hook(lambda module, args: args)
    x = tl.ones((1, 3, 4))
    y, weights = attention(x, return_weights=True)
    assert y.shape == (1, 3, 4) and weights.shape == (1, 2, 3, 3)


def test_a_handle_is_a_context_manager_also_after_an_exception():
    linear, x = nn.Linear(2, 2), tl.ones((1, 2))
    plain = linear(x).numpy()
    with linear.register_forward_hook(doubling) as handle:
        np.testing.assert_array_equal(linear(x).numpy(), plain * 2)
        assert handle is not None
    with pytest.raises(KeyError), linear.register_forward_hook(doubling):
        raise KeyError
    np.testing.assert_array_equal(linear(x).numpy(), plain)


def test_removing_a_hook_does_not_remove_a_later_one():
    linear, x = nn.Linear(2, 2), tl.ones((1, 2))
    plain = linear(x).numpy()
    gone = linear.register_forward_hook(doubling)
    gone.remove()
    linear.register_forward_hook(doubling)
    gone.remove()
    np.testing.assert_array_equal(linear(x).numpy(), plain * 2)


def test_a_hook_may_remove_itself_while_it_runs():
    linear, x, calls = nn.Linear(2, 2), tl.ones((1, 2)), []
    handle = linear.register_forward_hook(lambda *call: (calls.append(1), handle.remove(), None)[2])
    linear.register_forward_hook(lambda *call: calls.append(2))
    linear(x), linear(x)
    assert calls == [1, 2, 2]


def test_gradients_flow_through_hooks_and_nodes_carry_the_path():
    pair = Pair()
    found = []
    pair.second.register_forward_hook(lambda module, args, output: found.append(output * 3) or found[-1])
    pair(tl.ones((1, 2))).sum().backward()
    assert found[0].node.path == "second"
    twin = copy_without_hooks(pair)
    (twin.second(tl.relu(twin.first(tl.ones((1, 2))))) * 3 * twin.scale + twin.table).sum().backward()
    np.testing.assert_array_equal(pair.first.weight.grad.numpy(), twin.first.weight.grad.numpy())


def copy_without_hooks(pair):
    twin = Pair()
    twin.load_state_dict(pair.state_dict())
    return twin


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copied_module_has_its_own_hooks(duplicate):
    linear, x = nn.Linear(2, 2), tl.ones((1, 2))
    plain = linear(x).numpy()
    handle = linear.register_forward_hook(doubling)
    twin = duplicate(linear)
    handle.remove()
    np.testing.assert_array_equal(linear(x).numpy(), plain)
    np.testing.assert_array_equal(twin(x).numpy(), plain * 2)
    twin.register_forward_hook(doubling)
    np.testing.assert_array_equal(twin(x).numpy(), plain * 4)


def test_a_hook_from_another_process_is_not_overwritten(monkeypatch):
    linear, x = nn.Linear(2, 2), tl.ones((1, 2))
    plain = linear(x).numpy()
    monkeypatch.setattr(tl.HookHandle, "_numbers", count())
    linear.register_forward_hook(doubling)
    twin = pickle.loads(pickle.dumps(linear))
    monkeypatch.setattr(tl.HookHandle, "_numbers", count())  # as in a new process
    twin.register_forward_hook(doubling)
    np.testing.assert_array_equal(twin(x).numpy(), plain * 4)


def test_hooks_are_neither_in_the_state_nor_in_the_repr():
    linear = nn.Linear(2, 2)
    before = repr(linear), list(linear.state_dict())
    linear.register_forward_hook(doubling)
    assert (repr(linear), list(linear.state_dict())) == before


def test_a_call_restores_the_path_also_after_an_exception():
    tree = Tree()
    with tl.module_scope("outside"):
        with pytest.raises(ValueError, match="Linear trunk: x must have shape"):
            tree(tl.ones((1, 7)))
        assert (tree.trunk.weight * 1).node.path == "outside"


# ---- modes, dtypes, backends ----


def test_train_and_eval_reach_every_module_and_return_the_module():
    tree = Tree()
    assert all(m.training for m in tree.modules())
    assert tree.eval() is tree and not any(m.training for m in tree.modules())
    assert tree.train() is tree and all(m.training for m in tree.modules())


def test_an_attribute_is_no_switch_for_what_is_in_a_module():
    class Frozen(nn.Module):
        """A user's property of this name is the user's."""

        requires_grad = property(lambda self: False, lambda self, wanted: tree.zero_grad())

    tree = Tree()
    with pytest.raises(AttributeError, match=r"Tree.requires_grad = ...: would freeze nothing; set p.requires_grad"):
        tree.requires_grad = False
    with pytest.raises(AttributeError, match=r"Tree.training = ...: would not reach the modules below; write model.tr"):
        tree.training = False
    assert all(m.training for m in tree.modules())
    Frozen().requires_grad = False


def test_evaluating_restores_the_mode_of_every_module_also_after_an_exception():
    tree = Tree()
    tree.branches[1].eval()
    modes = [m.training for m in tree.modules()]
    with pytest.raises(KeyError), tree.evaluating() as same:
        assert same is tree and not any(m.training for m in tree.modules())
        raise KeyError
    assert [m.training for m in tree.modules()] == modes


def test_astype_converts_parameters_and_tables_in_place():
    tree = Tree()
    parameters = list(tree.parameters())
    tree.branches[0].counts = tl.Tensor(np.arange(3))
    assert tree.astype("float64") is tree
    assert all(a is b for a, b in zip(tree.parameters(), parameters, strict=True))
    assert {p.dtype for p in parameters} == {np.dtype("float64")}
    assert tree.branches[0].table.dtype == np.float64 and tree.branches[0].counts.dtype == np.int64
    assert tree(tl.Tensor(np.ones((1, 2)))).dtype == np.float64


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is float64 here")
def test_astype_refuses_more_than_64_bits():
    with pytest.raises(TypeError, match="astype: numbers of more than 64 bits are not supported, got dtype float"):
        Pair().astype("longdouble")


def test_what_a_forward_pass_kept_to_look_at_is_not_converted(backend):
    class Looking(nn.Module):
        def __init__(self):
            self.first = nn.Linear(2, 3)
            self.last = nn.Linear(3, 1)

        def forward(self, x):
            self.hidden = self.first(x)
            return self.last(self.hidden)

    model = Looking()
    loss = model(tl.ones((4, 2))).sum()
    hidden = model.hidden
    model.to(backend).astype("float64")
    assert {(p.dtype, p.backend) for p in model.parameters()} == {(np.dtype("float64"), backend)}
    assert model.hidden is hidden and hidden.dtype == np.float32 and hidden.backend.name == "numpy"
    with pytest.raises(RuntimeError, match="replaced since"):
        loss.backward()
    assert model(tl.ones((4, 2), "float64", backend=backend)).dtype == np.float64


def test_a_conversion_that_fails_leaves_the_model_as_it_was():
    pair = Pair()
    pair(tl.Tensor([[1.0, 2.0]])).sum().backward()
    arrays, gradients = [p.data for p in pair.parameters()], [p.grad for p in pair.parameters()]
    seen = []

    def fails_late(x):
        if len(seen) == 2:
            raise MemoryError
        seen.append(x)
        return x.data.astype("float64")

    with pytest.raises(MemoryError):
        pair._convert(fails_late)
    assert all(p.data is a for p, a in zip(pair.parameters(), arrays, strict=True))
    assert all(p.grad is g for p, g in zip(pair.parameters(), gradients, strict=True))


def test_converting_to_the_current_dtype_and_backend_changes_nothing():
    pair = Pair()
    pair(tl.Tensor([[1.0, 2.0]])).sum().backward()
    arrays, gradients = [p.data for p in pair.parameters()], [p.grad for p in pair.parameters()]
    pair.astype("float32").to("numpy")
    assert all(p.data is a for p, a in zip(pair.parameters(), arrays, strict=True))
    assert all(p.grad is g for p, g in zip(pair.parameters(), gradients, strict=True))
    pair.zero_grad()
    assert all(p.grad is None for p in pair.parameters())


def test_to_moves_everything_and_the_result_agrees(backend):
    tree = Tree()
    x = np.array([[0.5, -1.5]], np.float32)
    expected = tree(tl.Tensor(x)).numpy()
    tree.to(backend)
    held = [v for m in tree.modules() for v in vars(m).values() if isinstance(v, tl.Tensor)]
    assert len(held) == 12 and all(v.backend is tl.get_backend(backend) for v in held)
    y = tree(tl.Tensor(x, backend=backend))
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)
    y.sum().backward()
    assert all(p.grad.backend is tl.get_backend(backend) for p in tree.parameters())
    assert all(isinstance(a, np.ndarray) for a in tree.state_dict().values())
    tree.to("numpy")
    np.testing.assert_array_equal(tree(tl.Tensor(x)).numpy(), expected)


# ---- repr, and paths in the graph ----


def test_repr_shows_the_tree_with_parameter_counts():
    assert repr(Tree()).split("\n") == [
        "Tree()  # 40 parameters",
        "  trunk: Linear(2 -> 2)  # 6 parameters",
        "  branches: ModuleList()  # 34 parameters",
        "    0: Pair()  # 17 parameters",
        "      first: Linear(2 -> 3)  # 9 parameters",
        "      second: Linear(3 -> 2, no bias)  # 6 parameters",
        "    1: Pair()  # 17 parameters",
        "      first: Linear(2 -> 3)  # 9 parameters",
        "      second: Linear(3 -> 2, no bias)  # 6 parameters",
    ]


def test_nodes_carry_the_path_of_the_module_that_recorded_them():
    tree = Tree()
    y = tree(tl.Tensor([[1.0, 2.0]]))
    paths, stack = set(), [y.node]
    while stack:
        node = stack.pop()
        paths.add((node.path, node.name))
        stack += [edge[0] for edge in node.edges if edge and isinstance(edge[0], tl.Function)]
    assert ("trunk", "linear") in paths and ("branches.1.second", "linear") in paths
    assert ("branches.0", "relu") in paths and ("branches.1", "multiply") in paths
    assert all(path for path, _ in paths)
    assert tl.relu(tree.trunk.weight).node.path == ""  # outside a call the path is empty


# ---- as a function of its parameters ----


def test_functional_call_replaces_parameters_by_tensors():
    tree = Tree()
    tree.branches[1].first = tree.branches[0].first  # tied, so replaced in both modules
    parameters = list(tree.parameters())
    x = tl.Tensor([[1.0, -2.0]])
    other = Tree()
    other.branches[1].first = other.branches[0].first
    instead = {name: tl.Tensor(p, requires_grad=True) for name, p in other.named_parameters()}
    y = nn.functional_call(tree, instead, x)
    np.testing.assert_array_equal(y.numpy(), other(x).numpy())
    assert all(a is b for a, b in zip(tree.parameters(), parameters, strict=True))
    assert names(tree) == names(other)
    y.sum().backward()
    assert all(t.grad is not None for t in instead.values())
    assert all(p.grad is None for p in parameters)


def test_functional_call_keeps_other_parameters_and_restores_all_after_an_exception():
    pair = Pair()
    scale = pair.scale
    zero = nn.functional_call(pair, {"scale": tl.zeros(2)}, tl.Tensor([[1.0, 2.0]]))
    np.testing.assert_array_equal(zero.numpy(), 0)
    with pytest.raises(ValueError, match=r"Linear first: x must have shape \(\.\.\., 2\), got \(1, 9\)"):
        nn.functional_call(pair, {"scale": tl.zeros(2)}, tl.zeros((1, 9)))
    assert pair.scale is scale
    with pytest.raises(ValueError, match=r"unexpected nobody; scale must have shape \(2,\), got \(3,\)"):
        nn.functional_call(pair, {"scale": tl.zeros(3), "nobody": tl.zeros(1)}, tl.zeros((1, 2)))


# ---- mistakes ----

BAD = [
    (lambda: nn.Parameter(np.arange(3)), TypeError, "needs a real floating dtype, got int64"),
    (lambda: Pair().load_state_dict("model.safetensors"), TypeError, r"names to arrays, got str; tl\.load\(path\)"),
    (lambda: Pair().load_state_dict(Pair()), TypeError, r"names to arrays, got tests\.Pair; give its state_dict"),
    (lambda: Pair().load_state_dict({"scale": ["a", "b"]}, False), ValueError, "must hold real numbers, got .*U1"),
    (lambda: Pair().load_state_dict({"scale": [1j, 2]}, False), ValueError, "must hold real .* complex128"),
    (lambda: Pair().load_state_dict({"scale": [1, 1e300]}, False), ValueError, "of dtype float32 cannot hold 1e[+]300"),
    (lambda: Pair().load_state_dict({"scale": [[1], [1, 2]]}, False), TypeError, "scale must be an array, got list"),
    (lambda: tl.save(Pair(), "x"), TypeError, r"save: needs names with .* got tests\.Pair; pass model\.state_dict\(\)"),
    (lambda: nn.Buffer([1.0], "float64"), TypeError, "Buffer: persistent must be True or False, got 'float64'; name"),
    (lambda: Pair().load_state_dict({}), ValueError, "missing scale; missing first.weight"),
    (lambda: nn.functional_call(Pair(), Pair().parameters(), 1), TypeError, "names to Tensors, got generator"),
    (lambda: nn.functional_call(Pair(), {"scale": np.ones(2)}, 1), TypeError, r"to Tensors, got numpy\.ndarray"),
    (lambda: Pair().to("cud"), ValueError, "must be one of numpy, cpu, cupy, cuda, gpu; got 'cud'"),
    (lambda: Pair().to("float64"), ValueError, "got 'float64'"),
    (lambda: Pair().astype("int64"), TypeError, "astype: parameters need a floating dtype, got int64"),
    (lambda: Pair().astype("flaot32"), TypeError, "flaot32"),
    (lambda: Pair().astype("bfloat16"), TypeError, "astype: dtype must be numeric, .* got 'bfloat16'"),
    (lambda: Pair().astype(None), TypeError, "astype: dtype must be numeric, .* got None"),
    (lambda: Pair().astype(complex), TypeError, "astype: complex numbers are not supported, got dtype complex128"),
    (lambda: Pair().train([1]), TypeError, r"train: mode must be True or False, got \[1\]; train\(\) only"),
    (lambda: Pair().train("yes"), TypeError, "train: mode must be True or False, got 'yes'"),
    (lambda: nn.Module()(1), NotImplementedError, "Module: forward is missing"),
    (lambda: nn.ModuleList([nn.Linear(1, 1)])(1), NotImplementedError, "ModuleList: forward is missing"),
    (lambda: nn.ModuleList([tl.relu]), TypeError, "ModuleList: holds modules, got function; call functions in"),
    (lambda: nn.ModuleList([nn.Linear]), TypeError, "ModuleList: holds modules, got the class Linear; call it"),
    (lambda: nn.ModuleList([None]), TypeError, "ModuleList: holds modules, got NoneType"),
    (lambda: nn.Sequential([nn.Linear(1, 1)]), TypeError, r"Sequential: holds modules, got list; .*Sequential\(\*"),
    (lambda: nn.ModuleList()[0], IndexError, "ModuleList: index 0 is out of range for 0 modules"),
    (lambda: nn.Linear(1, 1).register_forward_hook(3), TypeError, "a hook must be callable, got int"),
    (lambda: nn.Linear(1, 1).register_forward_pre_hook(None), TypeError, "a hook must be callable, got NoneType"),
    (lambda: nn.Linear(1, 1)(nn.Linear(1, 1)), TypeError, "Linear: x must be numbers, got Linear; call it first"),
]  # fmt: skip


test_mistakes_are_named_with_what_was_given = refused(BAD)


class Tied(nn.Module):
    def __init__(self):
        self.a = nn.Linear(2, 2)
        self.b = nn.Linear(2, 2)
        self.b.weight = self.a.weight


def test_a_state_may_hold_nan():
    """As after a step that diverged; also in the values that tied names share."""
    module, nan = Tied(), np.array([[np.nan, 1.0], [2.0, np.inf]], np.float32)
    state = module.state_dict() | {"a.weight": nan, "a.bias": np.full(2, np.nan)}
    module.load_state_dict(state)
    np.testing.assert_array_equal(module.a.weight.numpy(), nan)
    assert np.isnan(module.a.bias.numpy()).all()
    module.load_state_dict(state | {"b.weight": nan.copy()})
    module.load_state_dict(state | {"b.weight": nan.astype(np.float64)})
    for other in (np.zeros((2, 2)), nan * 2, np.nan_to_num(nan)):
        with pytest.raises(ValueError, match=r"b\.weight and a\.weight are one tensor here \(tied\), but their values"):
            module.load_state_dict(state | {"b.weight": other})
    linear = nn.Linear(2, 2)
    linear.load_state_dict(linear.state_dict() | {"weight": nan})
    np.testing.assert_array_equal(linear.weight.numpy(), nan)


@pytest.mark.parametrize("value", [None, "abc", [[1.0], [2.0, 3.0]], {"a": 1}], ids=repr)
@pytest.mark.parametrize("owner", ["load_state_dict", "SGD", "ExponentialMovingAverage"])
def test_a_value_of_a_state_that_is_no_array_is_named_with_the_caller(owner, value):
    linear = nn.Linear(2, 2)
    average = nn.averaging.ExponentialMovingAverage(linear.named_parameters(), 0.9)
    load = {
        "load_state_dict": lambda state: linear.load_state_dict(state, strict=False),
        "SGD": nn.optim.SGD(linear.named_parameters(), 0.1, momentum=0.9).load_state_dict,
        "ExponentialMovingAverage": average.load_state_dict,
    }[owner]
    with pytest.raises(TypeError, match=rf"^{owner}: weight must be an array, got "):
        load({"weight": value})


@pytest.mark.peers
def test_tensors_of_pytorch_in_a_state_are_refused_in_the_name_of_the_caller():
    torch = pytest.importorskip("torch")
    linear = nn.Linear(2, 2)
    optimizer = nn.optim.SGD(linear.named_parameters(), 0.1, momentum=0.9)
    with pytest.raises(TypeError, match=r"^SGD: weight\.momentum is a torch\.Tensor; pass x\.numpy\(\)$"):
        optimizer.load_state_dict({"weight.momentum": torch.zeros(2, 2)})
    with pytest.raises(TypeError, match=r"^load_state_dict: weight is a torch\.Tensor; pass x\.numpy\(\), or .*\.T"):
        linear.load_state_dict({"weight": torch.zeros(2, 2)})
