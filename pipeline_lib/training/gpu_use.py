"""How busy the GPU of a fit is, asked of the driver's own library: no process is started, and no package is needed."""

import ctypes
from collections.abc import Callable
from typing import Any

LIBRARY = "libnvidia-ml.so.1"


class GpuUse:
    """Readings of a GPU's use, and their mean.

    Parameters
    ----------
    read : the per cent of the last moments (a sixth of a second to a second, says the driver's manual) in which the GPU
        was at work, for this fit or for others that share it; None where it cannot say.

    Examples
    --------
    >>> readings = iter([80.0, None, 90.0])
    >>> use = GpuUse(lambda: next(readings))
    >>> for _ in range(3):
    ...     use.sample()
    >>> use.facts()
    {'gpu_use_percent': 85.0}
    """

    def __init__(self, read: Callable[[], float | None]) -> None:
        self._read = read
        self._sum, self._readings = 0.0, 0

    def sample(self) -> None:
        """Read once."""
        percent = self._read()
        if percent is not None:
            self._sum, self._readings = self._sum + percent, self._readings + 1

    def facts(self) -> dict[str, float]:
        """The mean of the readings for run.json; nothing where there are none."""
        return {"gpu_use_percent": round(self._sum / self._readings, 1)} if self._readings else {}


def use_of(device: str) -> GpuUse:
    """Of the GPU that torch uses in this process, or of none for the device "cpu"."""
    if device != "cuda":
        return GpuUse(lambda: None)
    import torch

    return GpuUse(driver_reader(f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"))


def driver_reader(uuid: str, library: Any = None) -> Callable[[], float | None]:
    """A function that asks the driver how busy a GPU is, in per cent; None where it cannot say (a slice of a GPU).

    Parameters
    ----------
    uuid : of the GPU, as `nvidia-smi -L` shows it. Numbers would not do: CUDA counts only the GPUs it may see.
    library : the driver's library (NVML) or a stand-in; by default the one of this machine, if it has one.

    Examples
    --------
    >>> driver_reader("GPU-of-no-machine")() is None
    True
    """
    try:
        nvml = library or ctypes.CDLL(LIBRARY)
    except OSError:
        return lambda: None
    gpu = ctypes.c_void_p()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(gpu)):
        return lambda: None

    def read() -> float | None:
        use = (ctypes.c_uint * 2)()  # of the processors, and of the memory's bus
        return None if nvml.nvmlDeviceGetUtilizationRates(gpu, ctypes.byref(use)) else float(use[0])

    return read
