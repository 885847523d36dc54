"""Steps of a training as CUDA graphs: their operations are recorded once, and launched again as one.

A small network on a GPU spends its steps launching kernels. A recording works where it was made: weights, optimiser and
inputs stay at their addresses. Noise is drawn from where its generator is at each launch, as without a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pipeline_lib.training.checkpoint import Tensors

MOST = 16
"""Recordings of a training, which take memory each; what comes in more shapes is launched as it is."""
WARM_UP = 3
"""Runs before the recording, in which libraries choose their kernels and get their memory."""
Made = TypeVar("Made")


class Recording:
    """A function of tensors.

    Parameters
    ----------
    function : of inputs; tensor operations alone, none of whose values decides which come next.
    inputs : an example, of the shapes of all that will come.
    changed : what the function changes; recording leaves it as it is.
    streams : generators that the function draws from, beside torch's own.
    """

    def __init__(
        self,
        function: Callable[[Tensors], Tensor],
        inputs: Tensors,
        changed: Sequence[Tensor],
        streams: Sequence[torch.Generator] = (),
    ) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self.loaded: Tensors = {}
        before = [tensor.detach().clone() for tensor in changed]
        states = [torch.cuda.get_rng_state(), *(stream.get_state() for stream in streams)]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    function(self.inputs)
        finally:
            torch.cuda.current_stream().wait_stream(aside)
            for tensor, value in zip(changed, before, strict=True):
                tensor.detach().copy_(value)
        self.graph = torch.cuda.CUDAGraph()
        for stream in streams:
            self.graph.register_generator_state(stream)
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread may make batches
            self.output = function(self.inputs)
        torch.cuda.set_rng_state(states[0])
        for stream, state in zip(streams, states[1:], strict=True):
            stream.set_state(state)

    def takes(self, inputs: Tensors) -> bool:
        """Whether it has inputs of these names and shapes."""
        own = self.inputs
        return all(name in own and own[name].shape == tensor.shape for name, tensor in inputs.items())

    def load(self, inputs: Tensors) -> None:
        """Put some or all of the inputs of the next run where it takes them from."""
        for name, tensor in inputs.items():
            if self.loaded.get(name) is not tensor:
                self.inputs[name].copy_(tensor)
        self.loaded |= inputs

    def run(self, inputs: Tensors) -> Tensor:
        """The function of `inputs`; valid until it runs again."""
        self.load(inputs)
        self.loaded = {}
        self.graph.replay()
        return self.output


class Recordings:
    """Recordings of a function, one for each kind of inputs, made when first asked for; at most `MOST`."""

    def __init__(self) -> None:
        self.made: dict[Hashable, Recording] = {}
        self.last: Recording | None = None

    def load(self, inputs: Tensors) -> None:
        """Load what the next run is going to be given while the last one is at work, where it is of the same shapes."""
        if self.last is not None and self.last.takes(inputs):
            self.last.load(inputs)

    def run(
        self,
        kind: Hashable,
        function: Callable[[Tensors], Tensor],
        inputs: Tensors,
        changed: Sequence[Tensor],
        streams: Sequence[torch.Generator] = (),
    ) -> Tensor:
        """As `Recording.run`; `kind`: all beside the shapes of the inputs on which the operations depend."""
        key = (kind, *((name, tensor.shape) for name, tensor in inputs.items()))
        if key not in self.made and len(self.made) == MOST:
            return function(inputs)
        if key not in self.made:
            self.made[key] = Recording(function, inputs, changed, streams)
        self.last = self.made[key]
        return self.last.run(inputs)


class Prefetched(Generic[Made]):
    """What a step needs, made while the GPU is at work on the step before; `make` is a function of the step alone."""

    def __init__(self) -> None:
        self.made: tuple[int, Made] | None = None

    def take(self, step: int, make: Callable[[int], Made]) -> Made:
        """What `step` needs."""
        made, self.made = self.made, None
        return made[1] if made is not None and made[0] == step else make(step)

    def prepare(self, step: int, make: Callable[[int], Made]) -> Made | None:
        """Make what `step` needs; None where there is no room for it yet."""
        try:
            self.made = step, make(step)
        except torch.OutOfMemoryError:
            self.made = None
        return self.made and self.made[1]

    def forget(self) -> None:
        """What was made is of no use any more."""
        self.made = None


def put_gradients(loss: Tensor, weights: Sequence[Tensor]) -> None:
    """`loss.backward()` for weights without a gradient, in a recording."""
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
        # Kernels over many weights ask that gradients lie in memory as these do.
        right = gradient is None or gradient.stride() == weight.stride()
        weight.grad = gradient if right else torch.empty_like(weight).copy_(gradient)
