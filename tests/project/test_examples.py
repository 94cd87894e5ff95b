"""Every example runs and prints the result that it is there to show."""

import os
import re
import subprocess
import sys

import pytest

from tests import ROOT

EXAMPLES = ROOT / "examples"

SHOWS = {
    "01_gradients": "first derivative 12.0 second 12.0",
    "02_learn_by_heart": "我有一只猫 -> I have a cat",
    "03_look_at_graphs": "transformer-depth-2.svg",
    "04_your_own_op": "Frozen: second order: ",
    "05_why_is_my_gradient_zero": "100 % of units dead",
    "06_copy_task": "0 1 2 3 4 5 6 7 8 9 -> 0 1 2 3 4 5 6 7 8 9\n",
    "07_recommender": "10 of 10 recommended items are from the cluster that the user likes",
    "08_step_through": "transformer-steps.html",
    "10_derive": "gradient of b  (2,) float64  ",
    "11_capture": "the losses are the same bits",
    "09_wrong_masks": "on target token 0 of sentence 0, by embedding in target_embedding at ",
}
QUICKLY = {"06_copy_task": ["--width", "32"]}  # at full size it takes minutes


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_example(name, tmp_path):
    environment = {**os.environ, "PYTHONUTF8": "1"}
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *QUICKLY.get(name, [])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert SHOWS[name] in run.stdout  # a new example needs a line in SHOWS
    MORE.get(name, lambda printed: None)(run.stdout)


def what_the_recommender_says(printed):
    """Check the orders that the docstring of the example states, in the table that it prints."""
    rows = re.findall(r"^(.+?) +recall@10 +([\d.]+)%   AUC ([\d.]+)", printed, re.MULTILINE)
    recall = {name: float(value) for name, value, _ in rows}
    auc = {name: float(value) for name, _, value in rows}
    truth, popular = "the truth that made the clicks", "popularity, the same for all"
    for loss in ("logistic", "BPR"):
        uniform, popularity, hard = (f"{loss}, {kind}" for kind in ("uniform", "popularity^0.75", "hard"))
        assert recall[popularity] < recall[uniform] < recall[hard] < recall[truth] < 1.2 * recall[hard]
        assert auc[popular] < auc[popularity] < auc[hard] < auc[uniform] < auc[truth]
        assert recall[popular] < recall[popularity] / 3


MORE = {"07_recommender": what_the_recommender_says}
