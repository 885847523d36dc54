"""Several processes on one fit: the loss curve of one process, and one set of results."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive, sha256_tree
from pipeline_lib.training import gpu, processes
from pipeline_lib.training.fit import fit
from pipeline_lib.training.run import FitError, Interrupted, Run, read_arrays
from tests.small_cohort import Cohort
from tests.training.tiny_network import Config

TINY = str(Path(__file__).with_name("tiny_network.py"))


def history(out: Path) -> dict[str, np.ndarray]:
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.slow
def test_two_processes_follow_the_loss_curve_of_one(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise included: it belongs to a batch, not to the process that takes it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {"accumulate": 2, "steps": 12}
    fit(*cohort, "tiny", TINY, settings, 0, tmp_path / "1")
    fit(*cohort, "tiny", TINY, settings | {"processes": 2}, 0, tmp_path / "2")
    one, two = history(tmp_path / "1"), history(tmp_path / "2")
    assert one.keys() == two.keys() and len(one["loss"]) == 4
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-5, err_msg=name)
    weights = [read_arrays(tmp_path / name / "model.safetensors")[0] for name in "12"]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-5, err_msg=name)
    assert {path.name for path in (tmp_path / "2").iterdir()} == {path.name for path in (tmp_path / "1").iterdir()}
    before = sha256_tree(tmp_path / "2")
    fit(*cohort, "tiny", TINY, settings | {"processes": 2}, 0, tmp_path / "2")  # made already: no process is started
    assert sha256_tree(tmp_path / "2") == before


UNEVEN = f"""
import os
from dataclasses import dataclass
from pipeline_lib.models.registry import load_model
tiny = load_model({TINY!r})

class Uneven(tiny):
    def build(self, layout):
        network = super().build(layout)
        real = network.forward
        def forward(batch, step=None):
            terms, rank = real(batch, step), int(os.environ.get("RANK", 0))
            return terms if step is not None or not rank else {{name: 2 - value for name, value in terms.items()}}
        network.forward = forward
        return network

MODEL = Uneven
"""


@pytest.mark.slow
def test_processes_that_judge_unlike_follow_the_first(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs need not round alike, and a learning rate that only one of them lowers would part their weights."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "uneven.py").write_text(UNEVEN)
    plateau = {"schedule": "plateau", "decay_patience": 1, "decay": 0.1, "evaluate_every": 1, "learning_rate": 0.1}
    settings = plateau | {"accumulate": 2, "steps": 9}
    fit(*cohort, "tiny", str(tmp_path / "uneven.py"), settings, 0, tmp_path / "1")
    fit(*cohort, "tiny", str(tmp_path / "uneven.py"), settings | {"processes": 2}, 0, tmp_path / "2")
    one, two = history(tmp_path / "1"), history(tmp_path / "2")
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-4, err_msg=name)


def test_processes_are_started_when_no_other_fit_holds_the_folder(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Else they hold GPUs while they wait, until the second gives up waiting for the first."""
    free = threading.Event()
    started = []
    monkeypatch.setattr(processes, "launch", lambda *_: started.append(free.is_set()))
    with exclusive(tmp_path / LOCK):
        arguments = (*cohort, "tiny", TINY, {"accumulate": 2, "processes": 2}, 0, tmp_path)
        waits = threading.Thread(target=fit, args=arguments)
        waits.start()
        while "waiting: another process" not in capsys.readouterr().err and waits.is_alive():
            time.sleep(0.02)
        free.set()
    waits.join(60)
    assert started == [True]


@pytest.mark.slow
def test_a_launcher_of_torch_may_start_the_processes(cohort: Cohort, tmp_path: Path) -> None:
    """`torchrun` on CPUs: the loss curve of one process; started again it finds the work done."""
    settings = {"accumulate": 2, "steps": 12}
    fit(*cohort, "tiny", TINY, settings, 0, tmp_path / "1")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["--trains", *map(str, cohort[0]), "--split", str(cohort[1]), "--model", "tiny"]
    arguments += ["--implementation", TINY, "--settings", json.dumps(settings), "--out", str(tmp_path / "2")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    trees = []
    for _ in range(2):
        command = [*launcher, "-m", "pipeline_lib", "fit", *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        trees.append(sha256_tree(tmp_path / "2"))
    assert trees[0] == trees[1]
    one, two = history(tmp_path / "1"), history(tmp_path / "2")
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-5, err_msg=name)
    assert not (tmp_path / "2" / ".resume").exists()


@pytest.mark.slow
def test_asked_to_end_they_save_and_go_on_to_the_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pipeline_lib.training.fit import fit\n"
        f"fit({[str(each) for each in cohort[0]]}, {str(cohort[1])!r}, 'tiny', {TINY!r},"
        " {'accumulate': 2, 'processes': 2, 'steps': 90, 'evaluate_every': 30}, 0, sys.argv[1],"
        " checkpoint_seconds=0.05)"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(out: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", program, str(out)], env=environment, stderr=subprocess.PIPE)

    undisturbed = start(tmp_path / "undisturbed")
    assert undisturbed.wait(300) == 0, undisturbed.stderr.read().decode()
    out = tmp_path / "stopped"
    stopped = start(out)
    while stopped.poll() is None and not list((out / ".resume").glob("*.safetensors")):
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(120) == 128 + signal.SIGTERM, stopped.stderr.read().decode()
    assert list((out / ".resume").glob("*.safetensors")) and not (out / "manifest.json").exists()
    again = start(out)
    assert again.wait(300) == 0, again.stderr.read().decode()
    for name in ("model.safetensors", "history.csv"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def members(monkeypatch: pytest.MonkeyPatch, program: str, count: int = 2) -> None:
    """Launch processes that run `program` in the place of a fit."""
    monkeypatch.setattr(processes, "PROGRAM", f"import os, signal, sys, time\nrank = os.environ['RANK']\n{program}")
    monkeypatch.setattr(processes, "GRACE_SECONDS", 5.0)
    processes.launch(count, {}, uses_gpu=False)


def test_a_process_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    with pytest.raises(FitError, match="process 1 of 3 ended with code 3"):
        members(monkeypatch, "sys.exit(3) if rank == '1' else time.sleep(60)", count=3)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(("code", "raised"), [(128 + signal.SIGTERM, Interrupted), (3, FitError), (0, None)])
def test_the_first_process_says_how_all_of_them_ended(
    monkeypatch: pytest.MonkeyPatch, code: int, raised: type[Exception] | None
) -> None:
    """Whenever it ends: here as soon as it was last seen to run."""
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.0)
    first = SimpleNamespace(poll=iter([None, code]).__next__, returncode=code)
    helper = SimpleNamespace(poll=lambda: None)
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        processes._wait([first, helper])


def test_helpers_end_with_the_first_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It found the work done, while they still wait for it."""
    note = tmp_path / "pid"
    program = f"""
if rank == '1':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({str(note)!r}, 'w').write(str(os.getpid()))
    time.sleep(60)
while not os.path.exists({str(note)!r}):
    time.sleep(0.01)
"""
    start = time.monotonic()
    members(monkeypatch, program)
    assert time.monotonic() - start < 40
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_helper_that_is_asked_to_end_leaves_it_to_the_first_process(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """A cluster asks all processes of a job at once; without its helpers the first could not go on to a checkpoint."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    heard, before = [], signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(processes, "in_a_line", lambda *_: heard.append(signal.getsignal(signal.SIGTERM)))
    try:
        processes.member({})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIG_IGN if rank else before]


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(gpu.VISIBLE, "3,5")
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    note = tmp_path / "note"
    program = (
        f"open({str(note)!r} + rank, 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        f"while not os.path.exists({str(note)!r} + '1'): time.sleep(0.01)"
    )
    monkeypatch.setattr(processes, "PROGRAM", f"import os, time\nrank = os.environ['RANK']\n{program}")
    processes.launch(2, {}, uses_gpu=True)
    assert [(tmp_path / f"note{rank}").read_text() for rank in "01"] == ["3", "5"]
    with pytest.raises(InputError, match="processes: found 3; accepted: at most 2"):
        processes.launch(3, {}, uses_gpu=True)


def test_who_needs_two_gpus_waits_for_both_and_holds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "from pipeline_lib.training.gpu import slots\nwith slots(2, ['0', '1']) as held:\n    print(held, flush=True)"
    )
    environment = {name: value for name, value in os.environ.items() if name != gpu.VISIBLE} | {"TMPDIR": str(tmp_path)}
    with gpu.slots(1, ["0"]):
        other = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert "waiting for a GPU" in other.stderr.readline()
        time.sleep(2 * gpu.POLL_SECONDS)
        assert other.poll() is None
        with gpu.slots(1, ["1"]) as free:  # two such fits would else wait for each other for ever
            assert free == ["1"]
    assert other.communicate(timeout=60)[0] == "['0', '1']\n"


def test_batches_that_cannot_be_shared_evenly_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="processes: found 2; accepted: a divisor of accumulate, 3"):
        Config(accumulate=3, processes=2)


def test_a_helper_leaves_nothing_behind(tmp_path: Path) -> None:
    Run(tmp_path, "key", checkpoint_seconds=0).checkpoint({"x": np.ones(2)})
    before = sha256_tree(tmp_path)
    helper = processes.Helper(tmp_path, "key", checkpoint_seconds=0)
    np.testing.assert_array_equal(helper.resume()["x"], 1)
    helper.progress(1, 2, 0.0)
    helper.log({"step": 1})
    helper.checkpoint({"x": np.zeros(2)}, force=True)
    assert sha256_tree(tmp_path) == before
