"""Hyper-parameters of Gaussian-process factor analysis."""

from dataclasses import dataclass

from pipeline_lib.errors import InputError
from pipeline_lib.models.masked import Masked


@dataclass(frozen=True)
class Config:
    """Grids, of which the pair that predicts the held-in units of the validation part best is taken."""

    latents: tuple[int, ...] = (2, 4, 8, 12)
    """How many latents."""
    ridge: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    """Penalties of the readout: ridge / 2 * |weights|^2 beside the negative log-likelihood (nats, summed over bins)."""
    timescale: float = 100.0
    """Milliseconds about which the latents' timescales start, from a quarter to four times; each learns its own."""
    iterations: int = 60
    """Steps of expectation-maximisation, at most."""
    tolerance: float = 1e-4
    """The steps end when one raises the log-likelihood by less than this share of what all have raised it by."""

    predict_masked: tuple[Masked, ...] = ()
    """Also predict held-in units from all others (as the rates do anyway), from the others of their region, or from
    other regions; evaluation scores these rates, too."""

    def __post_init__(self) -> None:
        if not self.latents or not all(latents >= 1 for latents in self.latents):
            raise InputError("config", "latents", list(self.latents), "at least one whole number, all above 0")
        if not self.ridge or not all(0 < ridge < float("inf") for ridge in self.ridge):
            raise InputError("config", "ridge", list(self.ridge), "at least one number, all above 0")
        for name in ("timescale", "iterations", "tolerance"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError("config", name, getattr(self, name), "a number above 0")
