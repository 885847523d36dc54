"""Hyper-parameters of the GLM-Transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline_lib.training.settings import TrainingSettings

Part = Literal["background", "coupling", "history"]
PARTS: tuple[Part, ...] = ("background", "coupling", "history")


@dataclass(frozen=True)
class Config(TrainingSettings):
    """What can be set, with the settings of the training engine; `config/models/glm_transformer.yaml` explains it."""

    steps: int = 2000
    """Budget of each stage of the fit."""
    batch: int = 64
    learning_rate: float = 1e-2
    encoder_rate: float = 0.1
    """Learning rate of the encoder, as a share of `learning_rate`."""
    schedule: Literal["constant", "cosine", "inverse_root", "plateau"] = "constant"
    warmup: int = 0
    clip: float = 1.0
    evaluate_every: int = 20
    patience: int | None = 5

    background: Literal["full", "invariant", "gain"] = "full"
    """What a unit does without input from others: `invariant`: the same in every trial; `gain`: that, and a gain of
    the trial and population; `full`: that, and factors of the trial that a transformer reads off the counts."""
    factors: int = 1
    """Background factors of a population."""
    splines: int = 20
    """B-splines that a factor is made of, beside a constant."""
    smoothness: float = 100.0
    """Penalty on the squared second differences of the factors."""
    coupling: Literal["all", "between", "none"] = "all"
    """Which ordered pairs of populations are coupled; `all`: also a population with itself."""
    rank: int = 1
    """Coupling factors of a pair of populations."""
    coupling_basis: int = 3
    coupling_peak: float = 0.010
    """Seconds: where the slowest coupling function peaks."""
    sparsity: float = 1e-5
    """Penalty on the norm of a unit's sending and receiving weights."""
    history: Literal["first", "last", "none"] = "first"
    """The stage in which a unit's own past comes in, if any."""
    history_basis: int = 3
    history_peak: float = 0.003
    """Seconds: where the slowest history function peaks."""
    history_stretch: float = 1.0
    """How linear the axis of the history functions is; 0.5 for coupling."""

    token: float = 0.02
    """Seconds that are summed into a token of the encoder."""
    encoder: Literal["transformer", "gru"] = "transformer"
    """What reads the tokens; `gru`: recurrent in both directions, as wide and deep."""
    width: int = 128
    layers: int = 2
    heads: int = 1
    hidden: int = 512
    """Units of the feed-forward networks."""
    dropout: float = 0.0
    latents: int = 8
    """Latent dimensions of a population."""
    decoder: int = 2
    """Hidden units of the decoder, in units of its latents; 0: a linear decoder."""
    area_specific: bool = True
    """Each population has its own tokens, latents and decoder; else one of each for all."""
    sample_latent: bool = False
    """Draw the latent from its posterior in training (a variational autoencoder) instead of taking its mean."""
    kl_weight: float = 1.0

    parts: tuple[Part, ...] = PARTS
    """Of the log-rate, that a prediction is made of."""
    components: bool = False
    """Publish each part of the log-rate of every unit, bin and predicted window."""
    permutations: int = 199
    """Of trials, for the p of every coupling of populations, 1 / (permutations + 1) at the least; 0: no p. Its q is of
    another test, that of timing."""
    prune: float | None = None
    """Drop couplings of populations whose spikes are not timed to them in validation trials, at this false-discovery
    rate (`timing`), and refit the others; null: keep all."""
    compat: bool = False
    """Compute as the public code does: attention over the trials of a batch, the bias twice, small inputs cut to 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("factors", "rank", "width", "layers", "heads", "hidden", "latents"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("smoothness", "sparsity", "kl_weight", "permutations", "decoder"):
            self.require(0 <= getattr(self, name) < math.inf, name, "not below 0")
        for name in ("coupling_peak", "history_peak", "history_stretch", "token", "encoder_rate"):
            self.require(0 < getattr(self, name) < math.inf, name, "more than 0")
        for name in ("coupling_basis", "history_basis"):
            self.require(getattr(self, name) >= 2, name, "at least 2")
        self.require(self.splines >= 3, "splines", "at least 3: they are quadratic")
        self.require(self.width % 2 == 0, "width", "an even number")
        self.require(0 <= self.dropout < 1, "dropout", "from 0 to below 1")
        self.require(self.prune is None or 0 < self.prune < 1, "prune", "null, or a number between 0 and 1")
        once = len(set(self.parts)) == len(self.parts)
        self.require("background" in self.parts and once, "parts", "background, and coupling and history as wanted")
