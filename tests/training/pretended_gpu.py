"""Training steps on a GPU that is not there, run as a program: prints what was wrong with each network, as JSON.

Fake tensors of torch have a device and a shape, and no values. An operation on tensors of two devices raises, and so
does whatever reads a value: on a GPU the host would wait for it there, and a CUDA graph could not hold it. A process of
its own, since the pretended device is registered for good.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration

from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config as NDTConfig
from pipeline_lib.models.torch_model import TorchModel
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.graphs import put_gradients
from pipeline_lib.training.network import Network
from pipeline_lib.training.run import Run
from pipeline_lib.training.streaming import shuffled
from tests.models.glm_transformer.test_network import pair, windows
from tests.models.lfads.small import CONTROLLED, SMALL
from tests.small_cohort import open_cohort, write_cohort
from tests.training.tiny_network import Config as TinyConfig
from tests.training.tiny_network import TinyModel

DEVICE = "pretended"
NARROW = NDTConfig(layers=2, hidden=16, batch=8, mask_span=1)
"""One mode and width of masks: those of several are drawn on the host, before a step."""
MODES = ("timestep", "element", "neuron", "causal", "intra_region", "inter_region")


class NewTensors(TorchFunctionMode):
    """`torch.tensor` of numbers on the device: it fills memory, of which there is none."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        if function is torch.tensor and "device" in options:
            device = options.pop("device")
            return torch.empty_like(torch.tensor(*arguments, **options), device=device)
        return function(*arguments, **options)


class Mixing(Network):
    """Adds a tensor of the CPU."""

    vectorises = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        return batch

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (self.weight + torch.ones(3)).sum()}


class Reading(Mixing):
    """Looks at a count."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.weight.sum() * batch.counts.sum().item()}


def moved(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)


def move(network: Network) -> None:
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(moved(weight), requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else moved(buffer)


def problem(network: Network, batch: Batch) -> str:
    """What goes wrong in a step, or nothing."""
    network.train()
    with FakeTensorMode(), NewTensors():
        move(network)
        batch = batch.holding({name: moved(tensor) for name, tensor in batch.tensors().items()})
        try:
            loss = torch.stack(list(network(batch, 2).values())).sum()
            weights = list(network.parameters())
            put_gradients(loss, weights)
            norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
            assert loss.device.type == norm.device.type == DEVICE
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def started(model: TorchModel, folder: Path) -> tuple[Network, Batch]:
    """The network of a model on a cohort of two sessions with held-out units, and a batch."""
    data = open_cohort(*write_cohort(folder), fitting=True)
    train = model.windows(data, "train", Run(folder / "run"))
    model.start(data, train)
    return model.network, shuffled(train, model.config.batch, 0)[0]


def trials(**settings: object) -> tuple[Network, Batch]:
    """The network of the GLM-Transformer, and trials of its own."""
    return pair(**settings)[1], windows()


MODELS: dict[str, TorchModel] = {
    "tiny": TinyModel(TinyConfig(), 0),
    **{f"ndt that hides by {mode}": NDT(replace(NARROW, masking=(mode,)), 0) for mode in MODES},
    "ndt with embeddings and a context": NDT(
        replace(NARROW, embedding=2, read_in=8, context_backward=0.1, context_forward=0.1, mask_token_ratio=0.5), 0
    ),
    "lfads": LFADS(SMALL, 0),
    "lfads with sample validation": LFADS(replace(SMALL, sample_validation=0.2, pass_rate=0.3), 0),
    "lfads with a controller": LFADS(replace(CONTROLLED, initial_segment=0.05), 0),
}
OTHERS: dict[str, Callable[[], tuple[Network, Batch]]] = {
    "glm_transformer": trials,
    "glm_transformer of rank 2": lambda: trials(rank=2),
    "mixing": lambda: (Mixing(), windows()),
    "reading": lambda: (Reading(), windows()),
}

if __name__ == "__main__":
    made = {name: make() for name, make in OTHERS.items()}
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            made[name] = started(model, Path(folder))
    backend_registration._setup_privateuseone_for_python_backend(DEVICE)
    getattr(torch, DEVICE).get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch.library.Library("_", "IMPL", "AutocastPrivateUse1").fallback(torch.library.fallthrough_kernel)
    json.dump({name: problem(*each) for name, each in made.items()}, sys.stdout)
