"""Steps that can be CUDA graphs stay on one device and read no value: told without a GPU."""

import json
import subprocess
import sys

import pytest
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot pretend to have a device",
)
MODES = ("timestep", "element", "neuron", "causal", "intra_region", "inter_region")
SOUND = (
    "tiny",
    *(f"ndt that hides by {mode}" for mode in MODES),
    "ndt with embeddings and a context",
    "lfads",
    "lfads with sample validation",
    "lfads with a controller",
    "glm_transformer",
    "glm_transformer of rank 2",
)


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    program = [sys.executable, "-m", "tests.training.pretended_gpu"]
    return json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("name", SOUND)
def test_a_step_stays_on_its_device_and_reads_no_value(problems: dict[str, str], name: str) -> None:
    assert problems[name] == ""


def test_the_pretended_gpu_notices_both(problems: dict[str, str]) -> None:
    assert "same device" in problems["mixing"]
    assert "DataDependentOutput" in problems["reading"]
    assert problems.keys() == {*SOUND, "mixing", "reading"}
