"""The few shapes that batches are padded to."""

import numpy as np
import pytest

import models
import tensorlib as tl
from models.text.batching import epoch_batches, make_batch
from models.training.epochs import Epochs
from models.training.ladder import SHAPES, Ladder, positions
from tests.small_runs import config_maker, language_config_maker, trainer_for


def shapes_of(lengths_N2, epoch, **limit):
    """Return the shapes of an epoch's batches."""
    groups = epoch_batches(lengths_N2, seed=0, epoch=epoch, **limit)
    return np.array([(len(group), *lengths_N2[group].max(axis=0)) for group in groups])


def captions(count=5000):
    """Return lengths like those of image captions: a mean of 15 subwords, up to 50, and similar in both languages."""
    rng = np.random.default_rng(0)
    source_N = np.clip(rng.lognormal(2.65, 0.32, count), 3, 55).astype(int)
    return np.column_stack([source_N, np.clip(source_N + rng.normal(0, 2.5, count), 3, 50).astype(int)])


@pytest.mark.parametrize(("limit", "added"), [({"tokens_per_batch": 1024}, 0.15), ({"sentences_per_batch": 32}, 0.12)])
def test_a_few_shapes_serve_all_batches_and_padding_costs_little(limit, added):
    lengths = captions()
    ladder = Ladder.for_batches(np.concatenate([shapes_of(lengths, epoch, **limit) for epoch in range(3)]))
    later = np.concatenate([shapes_of(lengths, epoch, **limit) for epoch in range(3, 6)])
    assert len(np.unique(later, axis=0)) > 3 * SHAPES
    used = [ladder.shape_for(tuple(shape)) for shape in later.tolist()]
    assert np.mean([shape in ladder.shapes_N3.tolist() for shape in map(list, used)]) > 0.98
    assert 0 < ladder.added(later) < added


def test_every_batch_fits_its_shape_and_no_smaller_one_would_do():
    batches = shapes_of(captions(), 0, tokens_per_batch=500)
    ladder = Ladder.for_batches(batches, most=8)
    assert len(ladder.shapes_N3) == 8
    for shape in batches:
        found = np.array(ladder.shape_for(tuple(shape)))
        assert (found >= shape).all()
        fitting = ladder.shapes_N3[(ladder.shapes_N3 >= shape).all(axis=1)]
        assert positions(found) == positions(fitting).min()


def test_thousands_of_shapes_are_merged_in_a_moment():
    rng = np.random.default_rng(0)
    batches = np.column_stack([rng.integers(1, 100, 5000), rng.integers(1, 250, (5000, 2))])
    ladder = Ladder.for_batches(batches)
    assert len(ladder.shapes_N3) <= SHAPES
    assert all((np.array(ladder.shape_for(tuple(s))) >= s).all() for s in batches[:100])


def test_a_batch_that_no_shape_has_room_for_is_rounded_up():
    ladder = Ladder(np.array([[4, 8, 8]]))
    assert ladder.shape_for((3, 8, 2)) == (4, 8, 8)
    assert ladder.shape_for((5, 3, 17)) == (8, 8, 24)


@pytest.mark.parametrize(
    "config",
    [
        models.TransformerConfig(9, 9, layers=2, width=8, heads=2, feed_forward=16, dropout=0.0),
        models.TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=16, dropout=0.0, positions="learned"),
        models.RecurrentConfig(9, 9, layers=2, width=8, dropout=0.0),
        models.RecurrentConfig(9, 9, layers=1, width=8, dropout=0.0, kind="gru", attention="additive"),
        models.RecurrentConfig(9, 9, layers=1, width=8, dropout=0.0, attention="none"),
    ],
)
def test_padding_changes_loss_and_gradients_only_by_rounding(config, backend):
    """Rows of nothing but padding see nothing; no step of a recurrent layer is taken for padding."""
    from models.architectures.build import build_model

    model = build_model(config, tl.Generator(1)).astype("float64").to(backend)
    batch = make_batch([([5, 6, 3], [7]), ([5, 3], [7, 8])])
    padded = Ladder(np.array([[5, 7, 6]])).padded(batch)
    assert padded.source_BS.shape == (5, 7) and padded.target_out_BT.shape == (5, 6)
    assert padded.tokens == batch.tokens == 5
    found = []
    for b in (batch, padded):
        model.zero_grad()
        loss = model.loss(b.source_BS, b.target_in_BT, b.target_out_BT, 0.1, "sum")
        loss.backward()
        found.append((loss.item(), {n: p.grad.numpy() for n, p in model.named_parameters()}))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-12)
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], gradient, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("maker", [config_maker, language_config_maker])
def test_the_shapes_of_an_epoch_are_those_of_its_batches(tmp_path, maker):
    trainer = trainer_for(maker(tmp_path)(), tmp_path / "run")
    epochs = Epochs(trainer.run)
    for epoch in (1, 0):
        batches = epochs.batches(epoch, 0, epochs.count(epoch))
        shapes = [(*batch.source_BS.shape, batch.target_in_BT.shape[1]) for batch in batches]
        assert epochs.shapes(epoch).tolist() == [list(shape) for shape in shapes]
