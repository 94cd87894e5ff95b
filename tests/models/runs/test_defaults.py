"""The settings that are chosen by the size of the text."""

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from models.runs.config_layers import config_from
from models.runs.defaults import LANGUAGE_ROWS, ROWS, choose
from models.runs.nested_dicts import nested, to_dict
from models.text.size import StreamSize, TextSize
from models.training.optimizer import make_schedule, unreached_peak

FILES = {"train_tsv": "/t", "valid_tsv": "/v"}
TEXT = {"train_text": "/t", "valid_text": "/v", "model": {"kind": "language"}}


def chosen(size, **given):
    return {key: value for choice in choose(size, given) for key, value in choice.settings.items()}


@drawn(
    pairs=st.integers(1, 10**8),
    batches=st.sampled_from([None, 1, 1000]),
    characters=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    same=st.booleans(),
    width=st.sampled_from([None, 2, 6, 100, 4096]),
    epochs=st.sampled_from([None, 1, 100]),
    sentences=st.sampled_from([None, 1, 64]),
)
def test_every_size_of_text_and_every_override_makes_a_config(
    pairs, batches, characters, same, width, epochs, sentences
):
    given = {"epochs": epochs, "batch_sentences": sentences, "model": {"width": width} if width else None}
    given = FILES | {key: value for key, value in given.items() if value}
    size = TextSize(pairs, characters, same, batches and (lambda positions, sentences: batches))
    config = config_from(("command line", given), size=size)  # which checks all of its values
    assert config.optim.warmup < max(config.steps, 2) or config.epochs
    assert (config.model.width == width or not width) and bool(config.steps) != bool(epochs)
    needed = sum(characters) if config.tokenizer.shared else max(characters)
    assert config.tokenizer.vocabulary > 4 + 256 + needed
    assert config.model.tie_embeddings == config.tokenizer.shared == same


def test_more_text_means_more_subwords_a_larger_model_and_more_steps():
    sizes = [300, 3_000, 29_000, 53_581, 200_000, 5_000_000]
    rows = [chosen(TextSize(pairs)) for pairs in sizes]
    for key in ("tokenizer.vocabulary", "model.width", "batch_tokens", "steps", "optim.warmup"):
        assert [row[key] for row in rows] == sorted(row[key] for row in rows)
    assert [row["model.dropout"] for row in rows] == sorted((row["model.dropout"] for row in rows), reverse=True)
    assert len(rows) == len(ROWS)


def test_settings_follow_those_that_are_given():
    size = TextSize(29_000)
    wide = chosen(size, model={"width": 500})
    assert (wide["model.heads"], wide["model.feed_forward"]) == (5, 1000)  # 8 heads don't divide 500; 512 · 500 / 256
    assert wide["optim.learning_rate"] == 0.00077 and "model.width" not in wide
    assert chosen(size, model={"heads": 3})["model.width"] == 258  # 43 · 2 · 3: even, and nearest to 256
    short = chosen(size, steps=50)
    assert (short["optim.warmup"], short["validate_every"]) == (5, 2)
    in_epochs = chosen(size, epochs=2)
    assert (in_epochs["optim.warmup"], in_epochs["validate_every"]) == (48, 0) and "steps" not in in_epochs
    assert chosen(size, optim={"schedule": "noam"})["optim.learning_rate"] == 1.0
    assert chosen(size, tokenizer={"shared": False})["tokenizer.vocabulary"] == 4_000
    assert not chosen(size, tokenizer={"shared": False})["model.tie_embeddings"]
    assert "model.attention_dropout" not in chosen(size, model={"dropout": 0.4})  # it follows --model.dropout
    assert "best_by" not in chosen(size, bleu_sentences=0)


def test_the_steps_follow_the_number_of_batches():
    def sized(pairs, batches):
        return TextSize(pairs, batches=lambda positions, sentences: batches)

    assert chosen(sized(29_000, 254))["steps"] == 5_100  # 20 passes
    assert chosen(sized(10_000, 80))["steps"] == 4_700  # at least
    assert chosen(sized(300, 20))["steps"] == 1_500
    (reason,) = [c.reason for c in choose(sized(300, 20), {"steps": 60}) if "batch_tokens" in c.settings]
    assert reason == "about 3 passes over the text"
    in_epochs = chosen(sized(300, 20), epochs=30)
    assert in_epochs["optim.warmup"] == 60 and "steps" not in in_epochs
    calls = []
    chosen(TextSize(300, batches=lambda *limits: calls.append(limits) or 7), batch_sentences=5)
    assert set(calls) == {(0, 5)}


def test_saving_follows_validating():
    made = [c for c in choose(TextSize(300), {"validate_every": 750}) if "save_every" in c.settings]
    assert made[0].settings["save_every"] == 750 and made[0].reason == "2 validations in all"


def test_languages_with_different_letters_get_a_vocabulary_each_in_which_every_character_fits():
    made = chosen(TextSize(53_581, characters=(3_475, 118), same_letters=False))
    assert not made["tokenizer.shared"] and made["tokenizer.vocabulary"] == 4_000
    few = chosen(TextSize(300, characters=(900, 80), same_letters=False))
    assert few["tokenizer.vocabulary"] == 900 + 500


def test_a_complete_config_leaves_nothing_to_choose():
    for given in (FILES, FILES | {"epochs": 3}, FILES | {"model": {"dropout": 0.5}}):
        config = config_from(("command line", given), size=TextSize(300))
        assert config_from(("config.toml", to_dict(config)), size=TextSize(10**7)) == config


def test_each_choice_has_a_reason():
    for pairs in (1, 10**9):
        assert all(choice.reason and choice.settings for choice in choose(TextSize(pairs), {}))
    assert "about 20 passes over the text" in [choice.reason for choice in choose(TextSize(29_000), {})]


@pytest.mark.parametrize(
    "steps, times", [(1, "1 validation"), (5, "5 validations"), (1500, "20 validations"), (39, "39 validations")]
)
def test_the_number_of_validations_is_that_of_the_run(steps, times):
    assert choose(TextSize(), {"steps": steps})[-1].reason == f"{times} in all"


@pytest.mark.parametrize("schedule", ["inverse-sqrt", "cosine", "constant", "noam"])
def test_a_schedule_that_cannot_reach_its_peak_is_reported(schedule):
    optim = {"schedule": schedule, "warmup": 1000, "learning_rate": 5e-4}
    config = config_from(("command line", FILES | {"steps": 160, "optim": optim}))
    reached = make_schedule(config, 160)(160)
    said = unreached_peak(config, 160)
    assert f"rises for 1,000 steps, but training ends after about 160, at {reached:.2g}; lower --optim.warmup" in said
    assert not unreached_peak(config, 1000)


def test_nested_is_the_inverse_of_flat_items():
    assert nested({"a": 1, "b.c": 2, "b.d": {}}) == {"a": 1, "b": {"c": 2, "d": {}}}


# ---- language models ----


@drawn(
    size=st.integers(1, 10**11),
    batches=st.sampled_from([None, 1, 1000]),
    characters=st.integers(1, 20_000),
    model=st.fixed_dictionaries(
        {},
        optional={
            "width": st.sampled_from([2, 6, 100, 4096]),
            "positions": st.sampled_from(["rotary", "sinusoidal", "learned", "none"]),
            "max_length": st.sampled_from([2, 1000]),
        },
    ),
    epochs=st.sampled_from([None, 1, 100]),
    sentences=st.sampled_from([None, 1, 64]),
)
def test_every_size_of_a_language_models_text_makes_a_config(size, batches, characters, model, epochs, sentences):
    given = {"epochs": epochs, "batch_sentences": sentences}
    given = TEXT | {"model": {"kind": "language"} | model} | {key: value for key, value in given.items() if value}
    size = StreamSize(size, characters, batches and (lambda positions, sentences: batches))
    config = config_from(("command line", given), size=size)
    assert {key: getattr(config.model, key) for key in model} == model and config.model.kind == "language"
    assert config.optim.warmup < max(config.steps, 2) or config.epochs
    assert config.tokenizer.vocabulary > 4 + 256 + characters
    assert (config.best_by, config.bleu_sentences, config.optim.label_smoothing) == ("loss", 0, 0.0)
    assert config_from(("config.toml", to_dict(config)), size=StreamSize(7)) == config


def test_a_longer_text_means_more_subwords_a_larger_model_and_more_steps():
    sizes = [100_000, 1_000_000, 10_000_000, 100_000_000, 10**10]
    rows = [chosen(StreamSize(size), model={"kind": "language"}) for size in sizes]
    for key in ("tokenizer.vocabulary", "model.width", "batch_tokens", "steps", "optim.warmup"):
        assert [row[key] for row in rows] == sorted(row[key] for row in rows)
    assert len(rows) == len(LANGUAGE_ROWS)
    assert all(choice.reason for choice in choose(StreamSize(), {"model": {"kind": "language"}}))


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_the_width_fits_rotary_heads(heads):
    width = chosen(StreamSize(), model={"kind": "language", "heads": heads})["model.width"]
    assert width % (2 * heads) == 0
    rotary = chosen(TextSize(), model={"heads": heads, "positions": "rotary"})["model.width"]
    assert rotary % (2 * heads) == 0
