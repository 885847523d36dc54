"""Shared gain: every unit's rate is its mean, scaled by a few factors that a small network reads from the others."""

from dataclasses import dataclass

from torch import Tensor, nn

from pipeline_lib.models.torch_model import Layout, TorchModel
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.network import Network
from pipeline_lib.training.settings import TrainingSettings


@dataclass(frozen=True)
class Config(TrainingSettings):
    """Hyper-parameters: every key of `TrainingSettings`, and the model's own, each with a default."""

    steps: int = 400
    warmup: int = 10
    learning_rate: float = 2e-2
    evaluate_every: int = 25
    factors: int = 4
    """How many gains the units share."""
    width: float = 60.0
    """Milliseconds over which the network reads."""


class SharedGain(Network):
    """log-rate = bias + loadings x factors; factors = convolution over time of the held-in units' counts."""

    has_latents = True

    def __init__(self, config: Config, layout: Layout) -> None:
        super().__init__()
        width = 2 * max(1, round(config.width / layout.bin_size / 2)) + 1
        # What belongs to a session is kept by its id: sessions may have any number of units.
        self.sessions = nn.ModuleDict(
            {
                session: nn.ModuleDict(
                    {
                        "read": nn.Conv1d(units, config.factors, width, padding="same"),
                        "write": nn.Linear(config.factors, units),
                    }
                )
                for session, units in layout.units.items()
            }
        )

    def latents(self, batch: Batch) -> Tensor:
        """Factors [B, L, factors]. Only `visible` counts may be read: held-out units and future bins are not."""
        seen = (batch.counts * batch.visible).float()
        return self.sessions[batch.session]["read"](seen.transpose(1, 2)).transpose(1, 2).tanh()

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N]."""
        return self.sessions[batch.session]["write"](self.latents(batch)).clamp(max=5).exp()

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        """Poisson loss a bin, where something was observed; the bins of the history are not scored."""
        rates, seen = self.rates(batch), batch.observed[:, batch.history :]
        loss = (rates - batch.counts * rates.clamp(min=1e-9).log())[:, batch.history :]
        return {"nll": (loss * seen).sum() / seen.sum().clamp(min=1)}


class SharedGainModel(TorchModel):
    """The network as a model of the contract: training, resuming, predicting and saving come with it."""

    Config = Config
    sees = "held-in units, past and future"

    def build(self, layout: Layout) -> SharedGain:
        """The network, once the sessions are known."""
        return SharedGain(self.config, layout)


MODEL = SharedGainModel
