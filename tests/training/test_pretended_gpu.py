"""Trainings stay on their device, and recorded as CUDA graphs they are the same: told without a GPU."""

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
    *(f"ndt that hides by {mode}" for mode in MODES),
    "ndt with embeddings, a context and plateaus",
    "ndt of the hardest counts, ramped decay",
    "lfads",
    "lfads with all that hides",
    "lfads with a controller, bfloat16",
    "ndt of ragged windows",
    "lfads of ragged windows",
    "ensemble of ndt",
    "ensemble of ndt with modes of its own",
    "ensemble of ndt of the hardest counts",
    "ensemble of lfads",
    "glm_transformer",
    "glm_transformer of rank 2",
    "neuroformer",
    "log y!",
    "the host's time in the benchmark",
    "ndt without memory to record",
    "ensemble without memory to record",
    "ndt beyond the last recording",
    "tiny",
)


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    program = [sys.executable, "-m", "tests.training.pretended_gpu"]
    return json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("name", SOUND)
def test_recorded_steps_are_those_that_are_launched(problems: dict[str, str], name: str) -> None:
    assert problems[name] == ""


def test_the_pretended_gpu_notices_what_a_graph_cannot_hold(problems: dict[str, str]) -> None:
    assert "same device" in problems["mixing"]
    assert "waits for the host" in problems["reading"]
    assert "Not equal to tolerance" in problems["remembering"]
    assert problems.keys() == {*SOUND, "mixing", "reading", "remembering"}
