"""GPU slots, with GPUs that are only names."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.registry import load_model
from pipeline_lib.training import gpu
from pipeline_lib.training.gpu import candidates, slot
from pipeline_lib.training.publication import device_of

JOB = """
import os, sys, time
from pipeline_lib.training import gpu
log, seconds = sys.argv[1:]
gpu.candidates = lambda: ["0", "1"]
with gpu.slot() as device:
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    with open(log, "a") as file:
        print(gpu, time.monotonic(), file=file, flush=True)
        time.sleep(float(seconds))
        print(gpu, time.monotonic(), file=file, flush=True)
assert device == "cuda" and "CUDA_VISIBLE_DEVICES" not in os.environ
"""


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()


def job(log: Path, seconds: float, jobs: int = 1) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment["TRAINYARD_JOBS_PER_GPU"] = str(jobs)
    arguments = [sys.executable, "-c", JOB, str(log), str(seconds)]
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("jobs_per_gpu", [1, 2])
def test_jobs_never_share_a_slot(tmp_path: Path, jobs_per_gpu: int) -> None:
    logs = [tmp_path / f"{number}.log" for number in range(6)]
    jobs = [job(log, 0.3, jobs_per_gpu) for log in logs]
    errors = [each.communicate()[1] for each in jobs]
    assert [each.returncode for each in jobs] == [0] * 6
    events = []
    for log in logs:
        (gpu, start), (same, stop) = (line.split() for line in log.read_text().splitlines())
        assert gpu == same
        events += [(float(start), 1, gpu), (float(stop), -1, gpu)]
    held, most = {"0": 0, "1": 0}, {"0": 0, "1": 0}
    for _, change, gpu in sorted(events):
        held[gpu] += change
        most[gpu] = max(most[gpu], held[gpu])
    assert most == {"0": jobs_per_gpu, "1": jobs_per_gpu}
    assert any("waiting for a GPU" in error for error in errors)


def test_a_killed_job_frees_its_slot(tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = [job(log, 60) for _ in range(2)]
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert [each.poll() for each in killed] == [None, None]
        time.sleep(0.02)
    after = job(log, 0)
    assert "waiting" in after.stderr.readline()
    killed[0].send_signal(signal.SIGKILL)
    assert after.wait(timeout=20) == 0
    killed[1].kill()
    for each in (*killed, after):
        each.wait()
        each.stderr.close()


def test_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert candidates(devices=tmp_path) == ["0", "1"]
    for visible, expected in (("3, GPU-ab", ["3", "GPU-ab"]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert candidates(tmp_path) == expected


def test_no_gpu_is_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with slot() as device:
        assert device == "cpu" and os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not list((tmp_path / "temporary").iterdir())


def test_the_slot_is_the_only_gpu_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with slot() as device:
        assert device == "cuda" and os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_the_next_slot_of_a_process_is_of_the_gpu_that_cuda_was_started_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold another than it computes on, which then has two jobs."""
    monkeypatch.setattr(gpu, "_started_on", "")
    for started, second in ((False, "5"), (True, "4")):
        monkeypatch.setattr(gpu, "_cuda_started", lambda started=started: started)
        for visible, expected in (("4,5", "4"), ("5,4", second)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            with slot():
                assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for visible, lines in (("0", 1), ("", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with device_of(load_model("ndt")) as device:
            assert device == "cpu"
        told = capsys.readouterr().err
        assert told.count("\n") == lines and ("torch cannot use it" in told) == bool(lines)


def test_slurm_jobs_that_each_call_their_gpu_0_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    code = "from pipeline_lib.training.gpu import slot\nwith slot() as device: print(device, flush=True)"

    def another(job: str) -> subprocess.Popen:
        environment = os.environ | {"SLURM_JOB_ID": job}
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=-1, stderr=-1, text=True)

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with slot():
        other, same = another("8"), another("7")
        assert other.communicate(timeout=20) == ("cuda\n", "")
        assert "waiting for a GPU" in same.stderr.readline()
    assert same.communicate(timeout=20)[0] == "cuda\n"


def test_fits_share_a_gpu_where_the_environment_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("TRAINYARD_JOBS_PER_GPU", "2")
    with slot(), slot():
        assert len(list(tmp_path.rglob("*.lock"))) == 2
    for wrong in ("many", "0"):  # with none at all, every fit would wait for ever
        monkeypatch.setenv("TRAINYARD_JOBS_PER_GPU", wrong)
        with pytest.raises(InputError, match=rf"TRAINYARD_JOBS_PER_GPU.*'{wrong}'"), slot():
            pass
