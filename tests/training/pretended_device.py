"""A GPU that is not there, with all values: what a GPU would refuse raises here, too.

Tensors of the device "pretended" hold tensors of the CPU. An operation on tensors of two devices raises; noise is drawn
from the device's own generator. The graphs of `torch.cuda` are replaced: a capture runs nothing, refuses whatever waits
for a value, copies from the host or draws from a generator that it was not told of, and what it was given is made anew
at each replay. To import this registers the device for good: it is for processes of their own. Complex numbers are not
conjugated as they should be (torch does that later than anyone can see from here).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils import backend_registration

DEVICE = "pretended"
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXING = (aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
READING = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default)
RESIZING = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm")
"""Torch makes these by resizing an empty tensor, which a tensor that holds another does not notice."""
ROOM = [torch.inf]
"""Bytes of the largest new tensor for which a capture finds memory."""
WAITS = [0]
"""How often the host has waited for the device."""


class Held(Tensor):
    """A tensor on the device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Held:
        place = {"storage_offset": held.storage_offset(), "dtype": held.dtype, "device": torch.device(DEVICE, 0)}
        return Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), **place)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: tuple = (), options: Any = None) -> Any:
        return operate(operation, arguments, options or {})

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(torch.tensor(index, device=DEVICE) if isinstance(index, list) else index)

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(torch.tensor(index, device=DEVICE) if isinstance(index, list) else index, value)

    def tolist(self) -> list:
        return self.cpu().tolist()


class Generator(torch.Generator):
    """One of the CPU that says it is of the device, if it is to be."""

    def __new__(cls, device: str | torch.device = "cpu") -> Generator:
        return super().__new__(cls)

    def __init__(self, device: str | torch.device = "cpu") -> None:
        super().__init__()
        self._named = device

    @property
    def device(self) -> torch.device:
        return torch.device(self._named)


def operate(operation: Any, arguments: tuple, options: dict[str, Any]) -> Any:
    """Run an operation that concerns the device, on what its tensors hold."""
    flat, spec = tree.tree_flatten((arguments, options))
    held = {id(each.held): each for each in flat if isinstance(each, Held)}
    others = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, Held)]
    asked = options.get("device")
    leaves = operation in COPIES and (
        not isinstance(arguments[0], Held) if asked is None else torch.device(asked).type != DEVICE
    )
    crosses = operation in COPIES and (leaves or bool(others))
    indices = arguments[1] if operation in INDEXING else ()
    later = options.get("non_blocking", len(arguments) > 2 and operation is aten.copy_.default and arguments[2])
    WAITS[0] += (bool(held) and operation in READING) or (crosses and not later)
    if held and not crosses and operation not in INDEXING and any(each.ndim for each in others):
        raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
    if graph.capturing is not None:
        by_value = any(isinstance(each, Tensor) and each.dtype == torch.bool for each in indices)
        if operation in READING or by_value or crosses or (others and operation in INDEXING):
            raise RuntimeError(f"{operation} waits for the host in a capture")
    lowered = [each.held if isinstance(each, Held) else each for each in flat]
    lowered = ["cpu" if isinstance(each, torch.device) else each for each in lowered]
    made = (run if graph.capturing is None else graph.capturing.take)(operation, lowered, spec)
    if leaves:
        return made

    def on_device(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return held[id(x)] if id(x) in held else Held(x)

    return tree.tree_map(on_device, made)


def run(operation: Any, flat: list, spec: Any) -> Any:
    """Run an operation on the CPU; noise comes from the device's generator unless another is named."""
    arguments, options = tree.tree_unflatten(flat, spec)
    if torch.Tag.nondeterministic_seeded not in operation.tags or any(isinstance(x, torch._C.Generator) for x in flat):
        return operation(*arguments, **options)
    with torch.random.fork_rng([]):
        torch.set_rng_state(Module.noise.get_state())
        made = operation(*arguments, **options)
        Module.noise.set_state(torch.get_rng_state())
    return made


class Graph:
    """A CUDA graph: what was captured, and generators that it knows."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, list, Any, list[Tensor] | None]] = []
        self.seeds: set[int] = set()

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.seeds.add(generator.initial_seed())

    def take(self, operation: Any, flat: list, spec: Any) -> Any:
        """Capture an operation: views are made at once, new tensors hold nothing yet, changes are left for later."""
        if any(isinstance(each, torch._C.Generator) and each.initial_seed() not in self.seeds for each in flat):
            raise RuntimeError(f"{operation}: a capture draws from a generator that was not registered")
        if operation.is_view:
            return run(operation, flat, spec)
        if operation._schema.is_mutable:
            arguments, options = tree.tree_unflatten(flat, spec)
            named = {each.name: value for each, value in zip(operation._schema.arguments, arguments, strict=False)}
            written = [each.name for each in operation._schema.arguments if each.is_write]
            self.taken.append((operation, flat, spec, None))
            changed = tuple((named | options)[name] for name in written)
            return None if not operation._schema.returns else changed[0] if len(changed) == 1 else changed
        made = run(operation, flat, spec)
        new = [each for each in tree.tree_leaves(made) if isinstance(each, Tensor)]
        for each in new:
            if each.nbytes > ROOM[0]:
                raise torch.OutOfMemoryError("out of memory in a capture")
            each.fill_(torch.nan if each.is_floating_point() else 0)
        self.taken.append((operation, flat, spec, new))
        return made

    def replay(self) -> None:
        with torch.no_grad():
            for operation, flat, spec, places in self.taken:
                made = run(operation, flat, spec)
                if places is not None:
                    new = [each for each in tree.tree_leaves(made) if isinstance(each, Tensor)]
                    for place, value in zip(places, new, strict=True):
                        place.copy_(value)


class graph(contextlib.AbstractContextManager):
    """A capture."""

    capturing: Graph | None = None

    def __init__(self, made: Graph, capture_error_mode: str) -> None:
        self.made = made

    def __enter__(self) -> None:
        self.noise = Module.noise.get_state()
        graph.capturing = self.made

    def __exit__(self, *error: object) -> None:
        graph.capturing = None
        Module.noise.set_state(self.noise)


class Stream:
    def wait_stream(self, other: Stream) -> None:
        """There is but one."""


@contextlib.contextmanager
def stream(aside: Stream) -> Iterator[None]:
    yield


class Module(backend_registration._DummyBackendModule):
    """What torch asks of a device."""

    noise = Generator(DEVICE)

    def manual_seed_all(self, seed: int) -> None:
        self.noise.manual_seed(seed)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def from_host(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` and `torch.as_tensor` by way of the CPU."""

    def made(*arguments: Any, device: Any = None, **options: Any) -> Tensor:
        tensor = function(*arguments, **options)
        return tensor if device is None else tensor.to(device)

    return made


def install() -> list[torch.library.Library]:
    """Register the device, and put its graphs in the place of CUDA's."""
    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=Module())
    every, autocast, some = (torch.library.Library(name, "IMPL") for name in ("_", "_", "aten"))
    every.fallback(lambda operation, *arguments, **options: operate(operation, arguments, options), "PrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in RESIZING:
        base, _, kind = name.partition(".")
        made = getattr(getattr(aten, base), kind or "default")
        some.impl(name, lambda *a, operation=made, **o: operate(operation, a, o), "PrivateUse1")
    torch.tensor, torch.as_tensor = from_host(torch.tensor), from_host(torch.as_tensor)
    torch.Generator = Generator
    torch.inference_mode = torch.no_grad  # views of tensors from outside of it cannot be told apart
    stand_ins = {"CUDAGraph": Graph, "graph": graph, "Stream": Stream, "stream": stream, "current_stream": Stream}
    noise = {"get_rng_state": Module.noise.get_state, "set_rng_state": Module.noise.set_state}
    noise |= {"is_initialized": lambda: True, "manual_seed_all": Module.noise.manual_seed}
    for name, stand_in in (stand_ins | noise).items():
        setattr(torch.cuda, name, stand_in)
    return [every, autocast, some]


LIBRARIES = install()
