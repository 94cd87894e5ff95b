"""The language model against the same model in PyTorch: logits, loss, gradients and training. Needs `peers`."""

import importlib
import sys

import numpy as np
import pytest

import tensorlib as tl
from models import LanguageConfig, LanguageModel, greedy
from models.text.tokens import BOS, PAD
from nn import optim
from tests import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'tensorlib[peers]'")
torch.set_num_threads(1)  # for tensors this small, dispatching to threads would take most of the time
pytestmark = pytest.mark.peers

# At the first step PyTorch imports further modules, which set an environment variable and a warning filter. Trigger
# that here: in a test, conftest would report it as a leak.
_weight = torch.nn.Parameter(torch.zeros(1))
_weight.sum().backward()
torch.optim.Adam([_weight]).step()

VARIANTS = [("rotary", "pre", True), ("rotary", "post", False), ("sinusoidal", "pre", False), ("learned", "post", True)]
VARIANTS += [("none", "pre", True)]
IDS = np.random.default_rng(0).integers(4, 11, (3, 7))
IDS[:, 0] = BOS
NEXT = np.concatenate([IDS[:, 1:], [[5], [6], [PAD]]], axis=1)
NOTHING = np.zeros((3, 0), int)


@pytest.fixture
def peer_of(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    peer = importlib.import_module("contestants.torch_language").TorchLanguageModel
    yield lambda ours: peer(ours.config, ours.state_dict())
    for name in {"contestants", "contestants.torch_language"} - before:
        sys.modules.pop(name, None)


def made(positions, norm, tied):
    sizes = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 24, "dropout": 0.0, "max_length": 9}
    config = LanguageConfig(11, **sizes, norm=norm, positions=positions, tie_embeddings=tied)
    model = LanguageModel(config, tl.Generator(2)).astype("float64")
    rng = np.random.default_rng(2)
    model.load_state_dict({n: a + 0.2 * rng.standard_normal(a.shape) for n, a in model.state_dict().items()})
    return model


def close(ours, theirs, name=""):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * max(np.abs(theirs).max(), 1), err_msg=name)


def their_loss(peer):
    logits = peer(torch.tensor(IDS)).transpose(1, 2)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(NEXT), ignore_index=PAD, label_smoothing=0.1)


@pytest.mark.parametrize("positions, norm, tied", VARIANTS)
def test_logits_loss_and_every_gradient(peer_of, positions, norm, tied):
    ours = made(positions, norm, tied)
    peer = peer_of(ours)
    close(ours(NOTHING, IDS).numpy(), peer(torch.tensor(IDS)).detach().numpy())
    loss, theirs = ours.loss(NOTHING, IDS, NEXT, 0.1), their_loss(peer)
    close(loss.item(), theirs.item())
    loss.backward()
    theirs.backward()
    gradients = peer.gradients()
    assert gradients.keys() == {name for name, _ in ours.named_parameters()}
    for name, p in ours.named_parameters():
        close(p.grad.numpy(), gradients[name], name)


@pytest.mark.parametrize("positions, norm, tied", VARIANTS)
def test_both_go_on_in_the_same_way_with_their_caches(peer_of, positions, norm, tied):
    ours = made(positions, norm, tied).eval()
    peer, cache, ids = peer_of(ours).eval(), [], [BOS, 7, 5]
    (found,) = greedy(ours, [[7, 5]], max_length=6, min_length=6)
    with torch.no_grad():
        logits = peer(torch.tensor([ids]), cache)[0, -1]
        for token in found:
            logits[3] = -torch.inf  # </s>, which may not come
            assert logits.argmax().item() == token
            logits = peer(torch.tensor([[token]]), cache)[0, -1]


def test_fifty_steps_of_training(peer_of):
    ours = made("rotary", "pre", True)
    peer = peer_of(ours)
    adam, theirs = optim.Adam(ours.named_parameters(), 1e-3), torch.optim.Adam(peer.parameters(), 1e-3)
    for _ in range(50):
        loss, their = ours.loss(NOTHING, IDS, NEXT, 0.1), their_loss(peer)
        loss.backward()
        their.backward()
        adam.step()
        theirs.step()
        adam.zero_grad()
        theirs.zero_grad()
    close(loss.item(), their.item())
    for name, p in ours.named_parameters():
        close(p.numpy(), peer.weight(name).detach().numpy(), name)
