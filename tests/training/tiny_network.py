"""The smallest model on the engine, in one file as a user would write it: noisy gains of a few shared factors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pipeline_lib.models.torch_model import Layout, TorchModel
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.network import Network
from pipeline_lib.training.settings import TrainingSettings


@dataclass(frozen=True)
class Config(TrainingSettings):
    steps: int = 12
    warmup: int = 2
    evaluate_every: int = 3
    batch: int = 8
    learning_rate: float = 1e-2
    factors: int = 3
    noise: float = 0.3


class Tiny(Network):
    """log-rate = read_out(tanh(read_in(counts) x noise))."""

    def __init__(self, config: Config, layout: Layout) -> None:
        super().__init__()
        self.shared = nn.Linear(config.factors, config.factors)
        self.dropout = nn.Dropout(config.noise)
        self.sessions = nn.ModuleDict(
            {
                session: nn.ModuleDict(
                    {"read_in": nn.Linear(units, config.factors), "read_out": nn.Linear(config.factors, units)}
                )
                for session, units in layout.units.items()
            }
        )

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        rates = self.rates(batch)
        nll = (rates - batch.counts * rates.log()) * batch.observed
        return {
            "nll": nll[:, batch.history :].sum() / batch.observed[:, batch.history :].sum(),
            "size": 1e-3 * self.shared.weight.square().sum(),
        }

    def rates(self, batch: Batch) -> Tensor:
        head = self.sessions[batch.session]
        x = head["read_in"]((batch.counts * batch.visible).float())
        return head["read_out"](self.shared(self.dropout(x.tanh()))).exp()


class TinyModel(TorchModel):
    Config = Config
    sees = "held-in units, past and future"

    def build(self, layout: Layout) -> Tiny:
        return Tiny(self.config, layout)


MODEL = TinyModel
