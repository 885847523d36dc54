"""Hyper-parameters of the Neuroformer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline_lib.clock import duration_bins
from pipeline_lib.errors import InputError
from pipeline_lib.training.settings import TrainingSettings

Kind = Literal["regression", "classification"]


@dataclass(frozen=True)
class Config(TrainingSettings):
    """What can be set, with the settings of the training engine; `config/models/neuroformer.yaml` says more."""

    steps: int = 3000
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    average: float = 0.99
    patience: int | None = 20
    window: float = 0.05
    """Seconds that are written as one sequence; a sample of the split is cut into such windows."""
    past: float = 0.15
    """Seconds before a window whose spikes it attends to; never more than the history of the split's windows."""
    width: int = 64
    heads: int = 4
    layers_state: int = 1
    """Causal self-attention over the window, before and after the other blocks."""
    layers_past: int = 1
    """Attention of the window to the past."""
    layers_frames: int = 1
    layers_signals: int = 1
    dropout: float = 0.2
    jitter: bool = True
    """In training cut every batch at a random bin, so that a spike is seen at every place of a window."""
    limit: int | None = None
    """Tokens of a window and of its past, at most; null: as many as there are. What is cut off is counted in the
    table `tokens`."""
    compat: bool = False
    """Heads of the public code, bin and unit independent, to measure what that costs (see `independent`)."""
    frames: int = 0
    """Frames of the stimulus that a window attends to; 0: none. They are taken every `frame_step` from the start of a
    sample on, the last of them not after the window's last bin begins."""
    frame_step: float = 0.05
    """Seconds from a frame to the next."""
    frame_kernel: tuple[int, int] = (8, 8)
    """Height and width of the patches that frames are cut into."""
    signals: tuple[str, ...] = ()
    """Inputs `signal/column`, such as `running/speed`: their means over steps of a window's length, past included."""
    decode: dict[str, Kind] = field(default_factory=dict)
    """What is read out of every window: `signal/column`, its mean (regression) or its last value (classification)."""
    decode_hidden: int = 64
    """Hidden units of each read-out; 0: linear."""
    decode_linear: bool = True
    """Start each read-out from a ridge regression on counts in steps of a window's length, in closed form."""
    contrastive: tuple[Literal["spikes", "frames", "signals"], ...] = ()
    """Features, each before it has attended to another, that are drawn together for the same window."""
    contrastive_width: int = 64
    contrastive_weight: float = 0.25
    temperature: float = 0.5
    """At the start; it is learned."""
    loss_terms: tuple[str, ...] | None = None
    """Terms of the loss that train (`time`, `id`, `heldout`, `contrastive`, `decode:running/speed`); null: all."""
    select: str | None = None
    """The term by which weights are kept; null: the sum."""
    objectives: tuple[str, ...] = ()
    """Terms of which the best weights are kept, too: a variable is then read out with those of its own term."""
    fraction: float = 1.0
    """Share of the training windows that is used, the first of a seeded order: for fine-tuning curves."""
    rollouts: int = 0
    """Times that every test window is generated after the fit, its past generated too, for the table `generated`."""

    probes: int = 8
    """Random pasts by which couplings are probed after the fit (see `connectivity`); 0: no couplings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "heads", "layers_state", "layers_past", "contrastive_width"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in (
            "frames",
            "rollouts",
            "probes",
            "decode_hidden",
            "layers_frames",
            "layers_signals",
            "contrastive_weight",
        ):
            self.require(0 <= getattr(self, name) < math.inf, name, "not below 0")
        for name in ("window", "past", "frame_step", "temperature"):
            self.require(0 < getattr(self, name) < math.inf, name, "more than 0")
        self.require(self.width % self.heads == 0, "width", f"a multiple of heads ({self.heads})")
        self.require(0 <= self.dropout < 1, "dropout", "from 0 to below 1")
        self.require(0 < self.fraction <= 1, "fraction", "above 0, at most 1")
        self.require(self.limit is None or self.limit >= 1, "limit", "null or at least 1")
        self.require(min(self.frame_kernel) >= 1, "frame_kernel", "two sizes, at least 1")
        for name in (*self.signals, *self.decode):
            named = name.count("/") == 1 and all(name.split("/"))
            self.require(named, "signals" if name in self.signals else "decode", "names such as running/speed")
        self.require(not set(self.signals) & set(self.decode), "decode", "no variable that is an input, too")
        given = {"spikes", *(["frames"] if self.frames else []), *(["signals"] if self.signals else [])}
        several = f"or at least two of {', '.join(sorted(given))}" if len(given) > 1 else "without frames or signals"
        accepted = f"none {several}"
        alike = len(self.contrastive) != 1 and set(self.contrastive) <= given
        self.require(alike and len(set(self.contrastive)) == len(self.contrastive), "contrastive", accepted)
        for name in self.loss_terms or ():
            self.require(name in self.terms, "loss_terms", f"some of {', '.join(self.terms)}")
        self.require(self.loss_terms is None or len(self.loss_terms) > 0, "loss_terms", "null or at least one term")
        chosen = self.trained
        self.require(self.select is None or self.select in chosen, "select", f"null or one of {', '.join(chosen)}")
        self.require(set(self.objectives) <= set(chosen), "objectives", f"some of {', '.join(chosen)}")

    def check_times(self, bin_size: float, history: int, forward: int) -> None:
        """Refuse times that bins of `bin_size` (ms), `history` and `forward` (bins of the split's) do not go with."""
        for name in ("window", "past", *(["frame_step"] if self.frames else [])):
            duration_bins(getattr(self, name), bin_size, name)
        if duration_bins(self.past, bin_size, "past") > history:
            accepted = f"at most the windows' history, {history * bin_size / 1000:g} s"
            raise InputError("config", "past", f"{self.past} s", accepted)
        if forward:
            found = f"{forward * bin_size / 1000:g} s"
            raise InputError("config", "splits.forward", found, "0: this model predicts one bin ahead (see `generate`)")

    @property
    def trained(self) -> tuple[str, ...]:
        """The terms that train."""
        return self.terms if self.loss_terms is None else self.loss_terms

    @property
    def terms(self) -> tuple[str, ...]:
        """All terms that the loss of these settings can have."""
        contrastive = ["contrastive"] if self.contrastive else []
        return ("time", "id", "heldout", *contrastive, *(f"decode:{name}" for name in self.decode))
