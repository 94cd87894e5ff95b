"""`tensorlib translate` and `evaluate` with a beam, with sampling, with several translations and with scores."""

import re

import pytest

from models.cli.main import main
from models.decoding.settings import Search
from models.evaluation.translator import Translator
from models.runs.loading import load_run
from tests.models.cli.test_commands import refusal, train_command, write_pairs

TEXTS = ["a b 1", "", "c d e 7"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a small run."""
    folder = tmp_path_factory.mktemp("searched")
    write_pairs(folder)
    text = {"train_tsv": folder / "train.tsv", "valid_tsv": folder / "valid.tsv"}
    assert main(train_command(30, out=folder / "run", optim__learning_rate=0.01, **text)) == 0
    return folder / "run"


@pytest.fixture
def printed(run, capfdbinary):
    """Return what translating TEXTS prints with further arguments: for each line its columns."""

    def translate(*arguments, texts=TEXTS):
        capfdbinary.readouterr()
        assert main(["translate", "--run", str(run), *arguments, *texts]) == 0
        return [line.split("\t") for line in capfdbinary.readouterr().out.decode().splitlines()]

    return translate


def test_n_best_prints_n_numbered_lines_for_each_line_best_first(printed):
    lines = printed("--n-best", "3")
    assert [line for line, _, _ in lines] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    scores = [float(score) for _, score, _ in lines]
    assert scores[:3] == sorted(scores[:3], reverse=True) and scores[6:] == sorted(scores[6:], reverse=True)
    assert [text for _, _, text in lines[3:6]] == [""] * 3
    assert len({text for _, _, text in lines[:3]}) > 1
    assert [text for _, _, text in lines[::3]] == [text for (text,) in printed()]


def test_scores_are_of_the_sentence_and_of_each_token(printed):
    for line, score, text, tokens in printed("--scores", "--n-best", "2", "--length-penalty", "1"):
        pairs = [token.rpartition("=") for token in tokens.split()]
        if line == "2":
            assert (score, text, tokens) == ("0.0000", "", "")
            continue
        if pairs[-1][0] == "</s>":
            pieces = "".join(piece for piece, _, _ in pairs[:-1])
            assert pieces.replace("▁", " ").strip() == text or "<0x" in pieces
        total = sum(float(log_prob) for _, _, log_prob in pairs)
        assert float(score) == pytest.approx(total * 6 / (5 + len(pairs)), abs=1e-3)
    assert [len(columns) for columns in printed("--scores")] == [3] * 3  # N lines in, N lines out


def test_a_beam_finds_what_greedy_does_not(run):
    loaded = load_run(run, "numpy")
    texts = [f"a b c {i}" for i in range(20)]

    def best(**settings):
        search = Search(length_penalty=0.0, **settings)
        translator = Translator(loaded.model, loaded.tokenizer, search=search)
        return [h[0].score for h in translator.hypotheses(texts, translator.encode(texts))]

    assert sum(best()) > sum(best(beam=1)) and best() == best(beam=4) != best(beam=2)


def test_sampling_depends_on_the_seed_and_on_the_line_alone(printed):
    drawn = printed("--sample", "--temperature", "3")
    assert drawn == printed("--sample", "--temperature", "3", "--seed", "0")
    assert drawn != printed("--sample", "--temperature", "3", "--seed", "1")
    assert drawn[0] == printed("--sample", "--temperature", "3", texts=["a b 1", *["b c " * 5] * 30])[0]
    assert printed("--sample", "--top-k", "1") == printed("--beam", "1") == printed("--sample", "--temperature", "1e-9")
    assert printed("--sample", "--top-p", "1e-9") == printed("--beam", "1")


def test_lengths_can_be_set(printed):
    def lengths(*arguments):
        return [len(tokens.split()) for _, _, tokens in printed("--scores", *arguments)]

    assert lengths("--max-length", "2") == [2, 0, 2]
    assert min(lengths("--min-length", "9")[::2]) >= 9  # nor may a text of few subwords end before
    assert max(lengths("--min-length", "24")) == 24  # the model's maximum length


BAD = {
    "beam": ("--beam 0", "--beam must be at least 1, got "),
    "more translations than the beam holds": (
        "--n-best 5",
        "--n-best must be at most --beam, got 5 and 4; raise --beam",
    ),
    "no translation": ("--n-best 0", "--n-best must be at least 1, got "),
    "a penalty": ("--length-penalty inf", "--length-penalty must lie in [-10, 10], got inf"),
    "a beam of samples": ("--sample --beam 4", "--sample draws one translation and keeps no beam, got --beam 4 too"),
    "several samples": ("--sample --n-best 2", "--sample draws one translation, got --n-best 2 too"),
    "temperature": ("--sample --temperature 0", "--temperature must be a finite number above 0, got 0.0"),
    "top-k": ("--sample --top-k -1", "--top-k must be at least 0, got "),
    "top-p": ("--sample --top-p 0", "--top-p must lie in (0, 1], got 0.0"),
    "too much top-p": ("--sample --top-p 1.5", "--top-p must lie in (0, 1], got 1.5"),
    "temperature without sampling": ("--temperature 2", "--temperature 2.0 needs --sample"),
    "a seed without sampling": ("--seed 1", "--seed 1 needs --sample"),
    "lengths": ("--min-length 5 --max-length 4", "--min-length must be at most --max-length, got 5 and 4"),
    "a negative length": ("--max-length -1", "--max-length must be at least 0, got "),
    "a length beyond the model's maximum": ("--min-length 25", "--min-length must be at most 24"),
}


@pytest.mark.parametrize("arguments, said", BAD.values(), ids=BAD)
def test_impossible_or_contradictory_settings_give_one_line(run, capsys, arguments, said):
    assert said in refusal(capsys, "translate", "--run", str(run), *arguments.split(), "a b")


def test_evaluate_takes_a_beam(run, capsys, tmp_path, monkeypatch):
    searches = []

    class Spied(Translator):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            searches.append(self.search)

    monkeypatch.setattr("models.cli.evaluate.Translator", Spied)
    (tmp_path / "text").write_text("a b c 1\nb c 2\nd e 3\n")
    base = ["evaluate", "--run", str(run), "--source", str(tmp_path / "text"), "--reference", str(tmp_path / "text")]
    outputs = {}
    for arguments in ("", "--beam 4", "--beam 1", "--max-length 2", "--beam 2 --length-penalty -9"):
        assert main([*base, *arguments.split(), "--output", str(tmp_path / "out")]) == 0
        outputs[arguments] = (tmp_path / "out").read_text()
        assert re.search(r"BLEU +\d", capsys.readouterr().out)
    assert outputs[""] == outputs["--beam 4"] and len(set(outputs.values())) == 4
    assert searches[-1] == Search(beam=2, length_penalty=-9.0)
    assert "--beam must be at least 1, got " in refusal(capsys, *base, "--beam", "0")
