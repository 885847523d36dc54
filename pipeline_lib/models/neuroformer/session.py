"""What of a Neuroformer belongs to a session: the units' embeddings and rates, read-outs, and scales of signals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.models.ndt.layers import Dropout
from pipeline_lib.models.neuroformer.layers import initialise
from pipeline_lib.models.neuroformer.regression import Regression, Steps, mean_and_spread
from pipeline_lib.models.neuroformer.tokens import Tokens
from pipeline_lib.models.neuroformer.windows import Windows

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.settings import Config

LEAST_PROBABLE = 0.01
"""What a regression may say of the probability of a class."""


class ReadOut(nn.Module):
    """Reads one variable: a standardised number, or the logits of `classes`, from `width` features and `counts` others.

    What a regression on the counts says (`regression`, in closed form), and what the network adds to it: by one linear
    map, or with `hidden` units between two.
    """

    scale: Tensor

    def __init__(self, width: int, counts: int, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.width, self.classes, self.dropout = width, classes, Dropout(dropout)
        outputs = max(classes, 1)
        self.regression = Regression(counts, outputs) if counts else None
        inputs = width + (outputs if counts else 0)
        layers = [nn.Linear(inputs, hidden), nn.GELU()] if hidden else []
        self.map = nn.Sequential(*layers, nn.Linear(hidden or inputs, outputs))
        for each in cast(nn.Linear, self.map[-1]).parameters():
            nn.init.zeros_(each)
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))

    def standard(self, target: Tensor) -> Tensor:
        """What is to be predicted [M, outputs]: standard deviations from the mean, or 1 for the class; NaN: unknown."""
        if not self.classes:
            return ((target - self.scale[0]) / self.scale[1])[:, None]
        each = functional.one_hot(target.nan_to_num().long(), self.classes).to(target)
        return each.masked_fill(~target.isfinite()[:, None], torch.nan)

    def outputs(self, features: Tensor) -> Tensor:
        """Standardised numbers or logits [M, outputs] of `features` [M, width + counts]."""
        own = self.dropout(features[:, : self.width])
        if self.regression is None:
            return cast(Tensor, self.map(own))
        expected = self.regression(features[:, self.width :])
        first = expected.clamp(min=LEAST_PROBABLE).log() if self.classes else expected
        return first + cast(Tensor, self.map(torch.cat([own, expected], 1)))

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Squared error in standard deviations, or cross-entropy in nats, mean over the windows that are known.

        `features` [M, width + counts]; `target` [M], values or class numbers, NaN where unknown.
        """
        known = target.isfinite()
        output, true = self.outputs(features[known]), target[known]
        if self.classes:
            error = functional.cross_entropy(output, true.long(), reduction="sum")
        else:
            error = (output - self.standard(true)).square().sum()
        return error / known.sum().clamp(min=1)

    def forward(self, features: Tensor) -> Tensor:
        """Values [M], or probabilities of the classes [M, classes]."""
        output = self.outputs(features)
        return output.softmax(-1) if self.classes else output[:, 0] * self.scale[1] + self.scale[0]


class Evidence(nn.Module):
    """The sum over all spikes of a window and its past of a vector of their unit, weighed by their bin.

    Attention averages, and forgets how many spikes there were; what a spike says about behaviour adds up.
    """

    def __init__(self, units: int, bins: int, width: int) -> None:
        super().__init__()
        self.unit = nn.Embedding(units, width)
        self.bin = nn.Parameter(torch.ones(bins, width))

    def forward(self, tokens: Tokens, first: int) -> Tensor:
        """[M, width] of tokens whose bin 0 is bin `first` of past and window together."""
        weight = self.bin[tokens.bin + first] * tokens.real[..., None]
        return (self.unit(tokens.unit) * weight).sum(1)


class Head(nn.Module):
    """Weights of one session.

    Parameters
    ----------
    heldin, units : rows of the units that are tokens, and how many units there are.
    window, past : bins of a window and of its past.
    decode : classes of every variable that is read out; 0: a number is regressed.
    """

    heldin: Tensor
    heldout: Tensor
    expected: Tensor
    signal_scale: Tensor

    def __init__(
        self, config: Config, heldin: Sequence[int], units: int, window: int, past: int, decode: Mapping[str, int]
    ) -> None:
        super().__init__()
        width, bins = config.width, past + window
        inside = torch.zeros(units, dtype=torch.bool)
        inside[list(heldin)] = True
        self.register_buffer("heldin", inside.nonzero().flatten(), persistent=False)
        self.register_buffer("heldout", (~inside).nonzero().flatten(), persistent=False)
        self.register_buffer("expected", torch.full((len(self.heldin),), 0.1))
        self.unit = nn.Embedding(len(self.heldin), width)
        self.logits = nn.Linear(width, len(self.heldin))
        self.again = nn.Parameter(torch.full((len(self.heldin),), -math.log(2.0)))
        """Log-odds of firing again in the bin of a spike: a further Poisson spike is half as likely as the first."""
        self.log_rates = nn.Linear(width, len(self.heldout)) if len(self.heldout) else None
        self.register_buffer("signal_scale", torch.tensor([[0.0], [1.0]]).repeat(1, len(config.signals)))
        self.bins = bins
        self.evidence = Evidence(len(self.heldin), bins, width) if decode else None
        self.steps = Steps.of(len(self.heldin), bins, window) if decode and config.decode_linear else None
        counts = 0 if self.steps is None else self.steps.number * self.steps.units
        how = config.decode_hidden, config.dropout
        self.decode = nn.ModuleDict(
            {name: ReadOut(2 * width, counts, classes, *how) for name, classes in decode.items()}
        )
        self.classes = dict(decode)
        for part in (self.unit, self.logits, self.log_rates, self.evidence):
            if part is not None:
                initialise(part)
        if self.evidence is not None:
            nn.init.normal_(self.evidence.unit.weight)
        nn.init.zeros_(self.logits.weight)
        if self.log_rates is not None:
            nn.init.zeros_(self.log_rates.weight)

    @torch.no_grad()
    def start_at(self, mean: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """Start as independent Poisson units of `mean` spikes a bin [units]; standardise the signals of `inputs`."""
        self.expected.copy_(mean[self.heldin])
        if self.log_rates is not None:
            self.log_rates.bias.copy_(mean[self.heldout].log())
        if "signals" in inputs:
            self.signal_scale.copy_(mean_and_spread(inputs["signals"].flatten(0, -2)))

    def features(self, windows: Windows, mean: Tensor) -> Tensor:
        """What variables are read from [M, 2 width + counts]: the `mean` [M, width] over a window's states, the
        evidence, and roots of counts."""
        assert self.evidence is not None
        past = self.bins - windows.counts.shape[1]
        total = self.evidence(windows.past, 0) + self.evidence(windows.now, past)
        found = [mean, total / (self.expected.sum() * self.bins).sqrt()]
        return torch.cat(found if self.steps is None else [*found, self.steps.roots(windows)], 1)

    def decode_losses(self, features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The loss of every variable, of what `features` gives and `targets` [M, variables]; see `ReadOut.loss`."""
        return {
            f"decode:{name}": cast(ReadOut, self.decode[name]).loss(features, targets[:, place])
            for place, name in enumerate(self.classes)
        }

    def decoded(self, features: Tensor) -> dict[str, Tensor]:
        """Values [M], or probabilities of the classes [M, classes], of each variable."""
        return {name: self.decode[name](features) for name in self.classes}
