"""How busy a GPU was, from a stand-in of the driver's library: it is asked of the right GPU, and at the right times."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline_lib.training import run as module
from pipeline_lib.training.gpu_use import GpuUse, driver_reader, use_of
from pipeline_lib.training.run import Run

DRIVER = """
#include <string.h>
typedef struct { unsigned int gpu, memory; } Use;
static int busy = 60, begun = 0, gpus[2];
int nvmlInit_v2(void) { begun = 1; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, int **gpu) {
    if (!begun) return 1;
    if (strcmp(uuid, "GPU-second") == 0) { *gpu = &gpus[1]; return 0; }
    if (strcmp(uuid, "GPU-slice") == 0) { *gpu = &gpus[0]; return 0; }
    return 6;
}
int nvmlDeviceGetUtilizationRates(int *gpu, Use *use) {
    if (gpu != &gpus[1]) return 3;
    use->gpu = busy += 10; use->memory = 5;
    return 0;
}
"""
"""The three functions of NVML that are used, with its types; its manual gives 1, 3 and 6 as these errors."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("driver")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a stand-in of the driver's library")
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "driver.so", folder / "driver.c"], check=True)
    return ctypes.CDLL(str(folder / "driver.so"))


def test_the_driver_is_asked_of_the_gpu_that_is_named(driver: ctypes.CDLL) -> None:
    read = driver_reader("GPU-second", driver)
    assert [read(), read()] == [70.0, 80.0], "of the processors, not of the memory's bus"


@pytest.mark.parametrize("uuid", ["GPU-unknown", "GPU-slice"])
def test_a_gpu_that_says_nothing_leaves_the_share_out(driver: ctypes.CDLL, uuid: str) -> None:
    use = GpuUse(driver_reader(uuid, driver))
    use.sample()
    assert use.facts() == {}


def test_without_a_gpu_nothing_is_asked() -> None:
    use = use_of("cpu")
    use.sample()
    assert use.facts() == {}


def test_a_fit_samples_with_its_progress_once_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the first step, and as seldom as the progress is shown: asking must cost nothing."""
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    readings = iter([50.0, 100.0])
    run = Run(tmp_path)
    run.gpu_use = GpuUse(lambda: next(readings))
    run.progress(0, 4, 1.0)
    assert run.gpu_use.facts() == {}
    run.progress(1, 4, 1.0)
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 3600.0)
    run.progress(2, 4, 1.0)
    run.progress(3, 4, 1.0)
    assert run.gpu_use.facts() == {"gpu_use_percent": 50.0}
    run.progress(4, 4, 1.0)
    assert run.gpu_use.facts() == {"gpu_use_percent": 75.0}
