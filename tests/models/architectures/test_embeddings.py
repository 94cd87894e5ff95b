"""Word vectors: the losses and their gradients, sparse updates, the measure, and what is learned."""

import numpy as np
import pytest

import tensorlib as tl
from models.architectures.embeddings import (
    Batch,
    Embeddings,
    UsedRows,
    evaluate,
    negative_sampling_loss,
    softmax_loss,
    window_mean,
)
from models.text.random_bits import random_bits
from models.text.sampling import NO_TOKEN

P, D, U, C = 5, 4, 7, 3


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    hidden, outputs = rng.standard_normal((P, D)), rng.standard_normal((U, D))
    return hidden, outputs, rng.integers(0, U, (P, C))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- the losses ------------------------------------------------------------------------------------------------------


def test_negative_sampling_has_the_value_and_the_gradients_of_the_paper(numbers):
    """Each true word is pulled by sigma(s) - 1, each negative pushed by sigma(s); equal ids add up."""
    hidden, outputs, ids = numbers
    h, u = tl.Tensor(hidden, requires_grad=True), tl.Tensor(outputs, requires_grad=True)
    loss = negative_sampling_loss(h, u, ids)
    loss.backward()
    expected, dh, du = 0.0, np.zeros_like(hidden), np.zeros_like(outputs)
    for p in range(P):
        for k in range(C):
            score = hidden[p] @ outputs[ids[p, k]]
            expected -= np.log(sigmoid(score if k == 0 else -score))
            slope = sigmoid(score) - (k == 0)
            dh[p] += slope * outputs[ids[p, k]]
            du[ids[p, k]] += slope * hidden[p]
    assert loss.item() == pytest.approx(expected)
    np.testing.assert_allclose(h.grad.numpy(), dh, atol=1e-12)
    np.testing.assert_allclose(u.grad.numpy(), du, atol=1e-12)


def test_the_softmax_has_the_value_and_the_gradients_of_its_formula(numbers):
    hidden, outputs, ids = numbers
    h, u = tl.Tensor(hidden, requires_grad=True), tl.Tensor(outputs, requires_grad=True)
    softmax_loss(h, u, ids[:, 0]).backward()
    p = np.exp(hidden @ outputs.T)
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(P), ids[:, 0]] -= 1
    np.testing.assert_allclose(h.grad.numpy(), p @ outputs, atol=1e-12)
    np.testing.assert_allclose(u.grad.numpy(), p.T @ hidden, atol=1e-12)


def test_the_mean_of_a_window_leaves_out_the_places_without_a_word():
    table, windows = np.random.default_rng(0).standard_normal((6, D)), [[1, 2, 5], [NO_TOKEN, 3, 3], [NO_TOKEN, 0, -1]]
    expected = [table[[1, 2, 5]].mean(axis=0), table[3], table[0]]
    np.testing.assert_allclose(window_mean(tl.Tensor(table), windows).numpy(), expected)


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
@pytest.mark.parametrize("loss", ["negative-sampling", "softmax"])
def test_the_gradient_of_every_objective_is_that_of_differences(numbers, objective, loss):
    inputs, outputs, ids = numbers
    windows = np.array([[0, 1, NO_TOKEN], [2, 2, 3], [NO_TOKEN, NO_TOKEN, 4], [1, 0, 2], [4, NO_TOKEN, 3]])

    def f(inputs, outputs):
        hidden = window_mean(inputs, windows) if objective == "cbow" else tl.embedding(inputs, [0, 3, 3, 1, 4])
        if loss == "softmax":
            return softmax_loss(hidden, outputs, ids[:, 0])
        return negative_sampling_loss(hidden, outputs, ids)

    tl.gradcheck(f, inputs, outputs, order=2)


# ---- sparse updates --------------------------------------------------------------------------------------------------


def test_the_used_rows_are_in_order_and_shared_by_equal_ids():
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows = UsedRows(table, np.array([[7, 2], [2, NO_TOKEN]]))
    assert rows.used_U.tolist() == [2, 7]
    assert rows.ids.tolist() == [[1, 0], [0, NO_TOKEN]]
    assert (rows.leaf.numpy() == table[[2, 7]]).all()
    every = UsedRows(table, np.array([9, 0]))
    assert every.used_U.tolist() == [0, 9] and every.ids.tolist() == [1, 0]


def batch_of(objective, words, count=200):
    rng = np.random.default_rng(1)
    if objective == "cbow":
        windows = rng.integers(NO_TOKEN, words, (count, 4))
        windows[:, 0] = rng.integers(0, words, count)
        return Batch(windows, rng.integers(0, words, count))
    return Batch(rng.integers(0, words, count), rng.integers(0, words, count))


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
@pytest.mark.parametrize("loss", ["negative-sampling", "softmax"])
@pytest.mark.parametrize("adagrad", [False, True])
def test_a_sparse_step_equals_a_dense_one_and_leaves_all_other_rows(objective, loss, adagrad):
    words, rate = 40, 0.05
    model = Embeddings(np.ones(100), 8, objective, loss, adagrad=adagrad)
    model.outputs_VD += np.random.default_rng(2).standard_normal(model.outputs_VD.shape).astype(np.float32)
    batch = batch_of(objective, words)
    inputs = tl.Tensor(model.inputs_VD, requires_grad=True)
    outputs = tl.Tensor(model.outputs_VD, requires_grad=True)
    hidden = window_mean(inputs, batch.read) if objective == "cbow" else tl.embedding(inputs, batch.read)
    if loss == "softmax":
        dense = softmax_loss(hidden, outputs, batch.targets_P)
    else:
        drawn = model.noise.draw(random_bits(5), batch.targets_P, model.negatives)
        dense = negative_sampling_loss(hidden, outputs, np.column_stack([batch.targets_P, drawn]))
    dense.backward()
    assert model.step(batch, random_bits(5), rate) == pytest.approx(dense.item(), rel=1e-6)
    for before, after in ((inputs, model.inputs_VD), (outputs, model.outputs_VD)):
        g = before.grad.numpy()
        step = g / np.sqrt(g * g + 1e-6) if adagrad else g
        np.testing.assert_allclose(after, before.numpy() - rate * step, rtol=1e-4, atol=1e-5)
    assert (model.inputs_VD[words:] == inputs.numpy()[words:]).all()


def test_adagrad_divides_by_the_root_of_all_squares_so_far():
    table, squares = np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32)
    for gradient in (3.0, 4.0):
        rows = UsedRows(table, np.array([1]))
        (rows.leaf * gradient).sum().backward()
        rows.descend(table, 1.0, squares)
    assert squares.ravel().tolist() == [0, 25, 0]
    np.testing.assert_allclose(table.ravel(), [0, -1 - 4 / 5, 0], rtol=1e-6)


# ---- the measure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["negative-sampling", "softmax"])
def test_the_measure_is_that_of_its_definition(loss):
    model = Embeddings(np.array([9, 4, 1, 30] * 5), 6, loss=loss)
    model.outputs_VD = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    model.inputs_VD *= 20
    batch = Batch(np.arange(20), np.arange(20)[::-1].copy())
    scores = model.inputs_VD.astype(float) @ model.outputs_VD.T
    if loss == "negative-sampling":
        noise = model.counts_V**0.75
        scores += np.log(noise / noise.sum())
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    own = p[np.arange(20), batch.targets_P]
    ranks = 1 + (p > own[:, None]).sum(axis=1)
    found = evaluate(model, batch, model.counts_V)
    assert found.log_probability == pytest.approx(np.log(own).mean(), rel=1e-5)
    assert (found.recall, found.rank) == ((ranks <= 10).mean(), ranks.mean())


def test_what_reads_nothing_is_measured_too():
    counts = np.array([6, 3, 1, 1])
    unigram = evaluate(None, Batch(np.zeros(2, int), np.array([0, 3])), counts)
    assert unigram.log_probability == pytest.approx(np.log([6 / 11, 1 / 11]).mean())
    assert (unigram.recall, unigram.rank) == (1.0, (1 + 3.5) / 2)
    flat = Embeddings(counts, 3, loss="softmax")  # its outputs are 0
    assert evaluate(flat, Batch(np.array([0]), np.array([1])), counts).log_probability == pytest.approx(-np.log(4))


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
@pytest.mark.parametrize("loss", ["negative-sampling", "softmax"])
def test_words_that_occur_together_are_learned_by_every_objective(objective, loss):
    """Words 0 to 4 occur near each other, and so do words 5 to 9: the other words of the group are the nearest."""
    rng = np.random.default_rng(0)
    model = Embeddings(np.ones(10), 8, objective, loss, seed=1)
    for step in range(150):
        group = 5 * rng.integers(0, 2, 200)
        read = group[:, None] + rng.integers(0, 5, (200, 3)) if objective == "cbow" else group + rng.integers(0, 5, 200)
        model.step(Batch(read, group + rng.integers(0, 5, 200)), random_bits(1, step), 0.1)
    groups = np.arange(10) // 5
    same = groups[:, None] == groups
    cosines = model.inputs_VD @ model.inputs_VD.T
    assert cosines[same].min() > cosines[~same].max() + 0.1
    every = np.arange(10)
    test = Batch(every[:, None] if objective == "cbow" else every, every)
    assert evaluate(model, test, np.ones(10)).log_probability == pytest.approx(-np.log(5), abs=0.3)


def test_the_same_seed_gives_the_same_bytes():
    def trained(seed):
        model = Embeddings(np.arange(1, 51), 8, seed=seed)
        for step in range(3):
            model.step(batch_of("skip-gram", 50), random_bits(seed, step), 0.1)
        return model.inputs_VD.tobytes() + model.outputs_VD.tobytes()

    assert trained(1) == trained(1) != trained(2)
