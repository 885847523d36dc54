"""Hyper-parameters of the Neural Data Transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline_lib.models.masked import Masked
from pipeline_lib.training.settings import TrainingSettings

Mode = Literal["timestep", "element", "neuron", "causal", "intra_region", "inter_region"]


@dataclass(frozen=True)
class Config(TrainingSettings):
    """What can be set, with the settings of the training engine; `config/models/ndt.yaml` names the published ones."""

    steps: int = 3000
    batch: int = 32
    learning_rate: float = 5e-3
    average: float = 0.99
    patience: int | None = 20
    embedding: int = 0
    """Numbers that a count is looked up as, in a table shared by all units; 0: the count itself."""
    embedding_init: Literal["uniform", "log"] = "uniform"
    """Where that table starts: anywhere near 0, or with the logarithm of the count, nearly."""
    read_in: int | None = 64
    """Width of a linear read-in of each session; null: none for a single session, whose width is then units x
    embedding, and 128 for a cohort of several."""
    layers: int = 4
    heads: int = 2
    hidden: int = 128
    """Units of the feed-forward networks."""
    activation: Literal["relu", "gelu"] = "relu"
    norm: Literal["pre", "post"] = "pre"
    final_norm: Literal["layer", "scale"] = "layer"
    fixup: bool = True
    """Small residual branches at the start."""
    position: Literal["learned", "sinusoid", "none"] = "learned"
    """What is added to a bin by its place in the window; none where the place means nothing: continuous time."""
    context_backward: float | None = 0.16
    """Seconds that a layer looks back; null: no limit."""
    context_forward: float | None = 0.08
    """Seconds that a layer looks ahead; null: no limit."""
    decoder_hidden: int = 0
    """Units of a hidden layer of the read-out; 0: none."""
    log_rates: bool = True
    """The read-out gives log-rates; else rates, through a ReLU."""
    dropout: float = 0.1
    """In the layers."""
    dropout_embedding: float = 0.2
    dropout_rates: float = 0.2
    """Before the read-out."""
    masking: tuple[Mode, ...] = ("timestep",)
    """What training hides; of several modes each step draws one, and validation averages over all."""
    mask_ratio: float = 0.25
    """Share that is hidden and scored."""
    mask_token_ratio: float = 1.0
    """Share of the hidden counts that become 0 (modes timestep and element)."""
    mask_random_ratio: float = 0.5
    """Share of the other hidden counts that become a random count; the rest is shown as it is, and scored."""
    hardest_share: float = 1.0
    """Share of the scored counts that training learns from, those of the largest loss; the loss is divided by the
    number of all. Evaluations score all of them (with `compat` as training does)."""
    evaluated_ratio: float | None = None
    """Share that evaluations hide and score, all of it shown as 0; null: what training does. A search over `mask_ratio`
    or the shares above names one: fewer hidden counts are easier to tell, and those that are shown easier still, so
    that losses of fits that each mask in their own way do not compare. 0: hide nothing and score everything, the public
    code's unmasked loss, which also pays for copying."""
    mask_span: int = 1
    """Longest run of bins in a mask."""
    span_ramp: tuple[int, int] = (0, 0)
    """Steps over which runs longer than a bin become the rule."""
    predict_masked: tuple[Masked, ...] = ()
    """Also predict held-in units from all others, from the others of their region, or from other regions, one pass a
    unit or region; evaluation scores these rates, too."""
    compat: bool = False
    """Initialise and mask as the public code does, faults included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "heads", "hidden", "mask_span"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("embedding", "decoder_hidden"):
            self.require(getattr(self, name) >= 0, name, "not below 0")
        self.require(self.read_in is None or self.read_in >= 1, "read_in", "null or at least 1")
        for name in ("dropout", "dropout_embedding", "dropout_rates"):
            self.require(0 <= getattr(self, name) < 1, name, "from 0 to below 1")
        for name in ("mask_token_ratio", "mask_random_ratio"):
            self.require(0 <= getattr(self, name) <= 1, name, "from 0 to 1")
        for name in ("mask_ratio", "hardest_share"):
            self.require(0 < getattr(self, name) <= 1, name, "above 0, at most 1")
        evaluated = self.evaluated_ratio
        self.require(evaluated is None or 0 <= evaluated <= 1, "evaluated_ratio", "null, or from 0 to 1")
        for name in ("context_backward", "context_forward"):
            seconds = getattr(self, name)
            self.require(seconds is None or 0 <= seconds < math.inf, name, "null (no limit) or seconds, not negative")
        self.require(len(self.masking) > 0, "masking", "at least one mode")
        self.require(self.span_ramp[0] <= self.span_ramp[1], "span_ramp", "two steps, the first not after the second")
