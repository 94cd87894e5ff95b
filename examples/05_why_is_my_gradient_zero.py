"""Three common bugs in one small network, and how the engine locates them.

`tl.debug()` stops at the first NaN or Inf. `tl.explain(parameter, loss)` says why a gradient is None, zero or unusual.
"""

import numpy as np

import nn
import tensorlib as tl


class Classifier(nn.Module):
    """Two layers, three classes, and a switch for one of the bugs."""

    def __init__(self):
        self.hidden = nn.Linear(4, 16)
        self.output = nn.Linear(16, 3)

    def forward(self, x, detach=False):
        """Return the probabilities of the classes."""
        h = tl.relu(self.hidden(x))
        if detach:
            h = h.detach()  # added "only to print it", but the result is used below
        return tl.softmax(self.output(h))


def mean_surprise(probabilities, targets):
    """Return the cross-entropy as beginners write it, as the logarithm of softmax, which may be log 0."""
    return -tl.log(tl.take_along_axis(probabilities, targets[:, None], axis=1)).mean()


tl.seed(0)
random = np.random.default_rng(0)
x = tl.Tensor(random.normal(size=(32, 4)).astype("float32"))
targets = random.integers(0, 3, size=32)

print("1. The loss is NaN or Inf. Which op was the first?\n")
model = Classifier()
model.output.weight.replace(model.output.weight.data * 200)  # as if the learning rate had been too high
try:
    with tl.debug():
        loss = mean_surprise(model(x), targets)
except FloatingPointError as error:
    print(error)

print("\n2. A gradient is None. Where was the gradient cut off?\n")
model = Classifier()
with tl.debug():  # records source lines and the places where a history ends
    loss = mean_surprise(model(x, detach=True), targets)
print(tl.explain(model.hidden.weight, loss))
loss.backward()
print("so after backward .grad is", model.hidden.weight.grad)

print("\n3. A gradient is all zero, and the loss does not move.\n")
model = Classifier()
model.hidden.bias.replace(np.full(16, -20, "float32"))  # the input of relu is far below zero for any x
with tl.debug():
    loss = mean_surprise(model(x), targets)
print(tl.explain(model.hidden.weight, loss))

print("\nWhen nothing is wrong, explain shows the path that most of the gradient takes.\n")
model = Classifier()
with tl.debug():
    loss = mean_surprise(model(x), targets)
print(tl.explain(model.hidden.weight, loss))
