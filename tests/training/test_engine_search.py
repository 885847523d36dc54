"""Searches: what they try follows from the seed, what is done stays done, and better settings win."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_tree
from pipeline_lib.models.registry import check_config, load_model
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training import search as module
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.run import FitError, read_arrays
from pipeline_lib.training.search import run_trial, search
from pipeline_lib.training.search_settings import Range, SearchSettings, Trial, place
from tests.small_cohort import Cohort, recording, write_cohort

TINY = str(Path(__file__).with_name("tiny_network.py"))
SPACE = {"learning_rate": Range(log_uniform=(1e-4, 1e-1)), "factors": Range(integers=(2, 5))}
RANDOM = SearchSettings(TINY, SPACE, {"steps": 6}, members=3)
POPULATION = replace(
    RANDOM, kind="population", members=4, generations=3, space={"learning_rate": SPACE["learning_rate"]}
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cohort"), made=[recording(units=6, trials=20)])


def test_draws_cover_the_range_evenly_in_its_own_measure() -> None:
    random = np.random.default_rng(0)
    logs = np.log10([SPACE["learning_rate"].draw(random) for _ in range(2000)])
    assert (logs.min(), logs.max()) == (pytest.approx(-4, abs=0.05), pytest.approx(-1, abs=0.05))
    assert np.mean(logs) == pytest.approx(-2.5, abs=0.06)
    assert {SPACE["factors"].draw(random) for _ in range(100)} == {2, 3, 4, 5}
    assert {Range(choice=("relu", "gelu")).draw(random) for _ in range(50)} == {"relu", "gelu"}
    assert 0.2 <= min(Range(uniform=(0.2, 0.3)).draw(random) for _ in range(500)) < 0.21


def test_trials_follow_from_the_seed_and_what_is_searched_is_not_fixed() -> None:
    first, again, other = (replace(RANDOM, seed=seed).first() for seed in (0, 0, 1))
    assert first == again and not {trial.searched["learning_rate"] for trial in first} & {
        trial.searched["learning_rate"] for trial in other
    }
    both = replace(RANDOM, fixed={"steps": 6, "learning_rate": 1.0})
    assert both.config(first[0]) == {"steps": 6} | first[0].searched


def test_generations_follow_from_the_seed_and_draw_anew() -> None:
    scores = [3.0, 1.0, 2.0, 4.0]
    first, again, other = (replace(POPULATION, seed=seed).next(POPULATION.first(), scores) for seed in (0, 0, 1))
    assert first == again
    assert [trial.searched for trial in first] != [trial.searched for trial in other]
    later = POPULATION.next([replace(trial, generation=1) for trial in POPULATION.first()], scores)
    assert [trial.searched for trial in first] != [trial.searched for trial in later]


def test_changes_stay_near_and_within_the_ends() -> None:
    random = np.random.default_rng(0)
    changed = [SPACE["learning_rate"].change(0.09, 0.3, random) for _ in range(500)]
    assert min(changed) == pytest.approx(0.063, abs=0.001) and max(changed) == 0.1
    assert {SPACE["factors"].change(4, 0.3, random) for _ in range(200)} == {3, 4, 5}
    assert {Range(integers=(1, 9)).change(1, 0.2, random) for _ in range(200)} == {1, 2}  # not for ever 1
    choice = Range(choice=("a", "b"))
    # Drawn anew with probability 0.2, and then as often what it was.
    assert np.mean([choice.change("a", 0.2, random) == "b" for _ in range(1000)]) == pytest.approx(0.1, abs=0.04)
    below = [Range(uniform=(-1, 1)).change(-0.5, 0.2, random) for _ in range(500)]
    assert (min(below), max(below)) == (pytest.approx(-0.6, abs=0.01), pytest.approx(-0.4, abs=0.01))


def test_a_random_search_ends_with_the_best_settings(cohort: Cohort, tmp_path: Path) -> None:
    table = search(*cohort, RANDOM, tmp_path)
    assert table.columns.tolist() == ["generation", "member", "parent", "score", "learning_rate", "factors"]
    assert len(table) == 3 and table["learning_rate"].nunique() == 3 and np.isfinite(table["score"]).all()
    best = table.loc[table["score"].idxmin()]
    text = (tmp_path / "best.yaml").read_text()
    expected = {"implementation": TINY, "steps": 6, "learning_rate": best["learning_rate"], "factors": best["factors"]}
    assert yaml.safe_load(text) == expected
    assert text.startswith(f"# Best of 3 fits: generation00/member{int(best['member']):02d}\n")
    assert "last generation" not in text


def test_no_fit_at_once_is_no_search(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.connection, "wait", lambda _: pytest.fail("it would wait for no process, for ever"))
    with pytest.raises(InputError, match="search: jobs: found 0; accepted: at least 1"):
        search(*cohort, RANDOM, tmp_path, jobs=0)
    assert not list(tmp_path.iterdir())


def test_a_killed_search_goes_on_and_ends_the_same(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(*cohort, POPULATION, tmp_path / "whole")
    assert "last generation alone" in (tmp_path / "whole/best.yaml").read_text()
    made, real = [], module.fit

    def fragile(*arguments: object) -> None:
        if len(made) == 6:
            raise KeyboardInterrupt
        real(*arguments)
        made.append(arguments)

    monkeypatch.setattr(module, "fit", fragile)
    with pytest.raises(KeyboardInterrupt):
        search(*cohort, POPULATION, tmp_path / "killed")
    monkeypatch.setattr(module, "fit", real)
    before = sha256_tree(place(tmp_path / "killed", 0, 2))
    again = search(*cohort, POPULATION, tmp_path / "killed")
    assert sha256_tree(place(tmp_path / "killed", 0, 2)) == before  # run.json too: it was not fitted again
    assert again.equals(whole)


def test_a_generation_goes_on_from_the_winners_weights(cohort: Cohort, tmp_path: Path) -> None:
    table = search(*cohort, POPULATION, tmp_path).set_index(["generation", "member"])
    assert len(table) == 12 and table["parent"].loc[0].isna().all()
    adopted = 0
    for (generation, member), row in table.loc[1:].iterrows():
        before, parent = table.loc[generation - 1], int(row["parent"])
        assert before["score"][parent] <= before["score"][member]
        same = row["learning_rate"] == before["learning_rate"][member]
        assert same if parent == member else abs(row["learning_rate"] / before["learning_rate"][parent] - 1) <= 0.2
        if parent != member:  # the winner's settings, changed
            adopted += 1
            assert row["learning_rate"] != before["learning_rate"][parent]
        manifest = yaml.safe_load((place(tmp_path, generation, member) / "manifest.json").read_text())
        assert manifest["config"]["initial"] == str(place(tmp_path, generation - 1, parent) / "model.safetensors")
    assert adopted > 1
    seeds = [yaml.safe_load((place(tmp_path, *trial) / "manifest.json").read_text())["seed"] for trial in table.index]
    assert len(set(seeds)) == 12  # else every generation sees the batches and the noise of the one before again
    assert table["score"].loc[2].min() < table["score"].loc[0].min()
    names = [read_arrays(place(tmp_path, 2, member) / "model.safetensors")[0].keys() for member in (0, 1)]
    assert names[0] == names[1]


def test_the_best_fit_may_be_of_an_early_generation(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.5, 0.1, 0.9, 0.8])

    def fitted(*arguments: object) -> None:
        folder = arguments[-1]
        folder.mkdir(parents=True)
        (folder / "history.csv").write_text(f"step,validation_loss\n1,{next(losses)}\n")
        (folder / "model.safetensors").write_bytes(b"")  # what the next generation starts from

    monkeypatch.setattr(module, "fit", fitted)
    table = search(*cohort, replace(POPULATION, members=2, generations=2), tmp_path)
    assert table["score"].tolist() == [0.5, 0.1, 0.9, 0.8]
    text = (tmp_path / "best.yaml").read_text()
    assert text.startswith("# Best of 4 fits: generation00/member01\n")
    assert yaml.safe_load(text)["learning_rate"] == table["learning_rate"][1]


def test_an_evaluation_that_was_no_number_is_not_the_best(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,validation_loss,stopped\n1,nan,\n2,0.5,\n3,0.7,\n4,,nan\n")
    assert [module._score(tmp_path / "history.csv", "validation_loss", last) for last in (False, True)] == [0.5, 0.7]


def test_a_failed_member_is_replaced_and_a_failed_search_says_so() -> None:
    trials = POPULATION.first()
    following = POPULATION.next(trials, [np.inf, 0.5, np.inf, np.inf])
    assert [trial.parent for trial in following] == [1, 1, 1, 1]
    assert following[1].searched == trials[1].searched and following[0].searched != trials[0].searched
    assert following[0] == POPULATION.next(trials, [np.inf, 0.5, np.inf, np.inf])[0]
    assert isinstance(following[0], Trial)
    two = replace(POPULATION, members=2)
    for seed in range(8):  # nobody meets himself: of two the worse always meets the better
        pair = replace(two, seed=seed)
        assert [trial.parent for trial in pair.next(pair.first(), [0.5, 0.7])] == [0, 0]
    rivals = [POPULATION.next([replace(each, generation=g) for each in trials], [0, 1, 2, 3]) for g in range(6)]
    assert len({tuple(trial.parent for trial in each) for each in rivals}) > 3  # others in every generation
    with pytest.raises(FitError, match="all 4 trials of generation 0 failed"):
        POPULATION.next(trials, [np.inf] * 4)


def test_when_every_trial_fails_nothing_is_called_best(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def diverge(*arguments: object) -> None:
        raise FitError("the loss is nan")

    monkeypatch.setattr(module, "fit", diverge)
    with pytest.raises(FitError, match="all 3 trials of generation 0 failed"):
        search(*cohort, RANDOM, tmp_path)
    assert "member02: the loss is nan" in capsys.readouterr().err
    assert not (tmp_path / "best.yaml").exists() and "inf" in (tmp_path / "trials.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{model: ndt, space: {dropuot: {uniform: [0, 0.3]}}}", "did you mean 'dropout'"),
        ("{model: ndt, space: {dropout: {uniform: [0.3, 0]}}}", r"space.uniform: found \[0.3, 0.0\]"),
        ("{model: ndt, space: {dropout: {uniform: [0, 0.3], choice: [1]}}}", "found uniform and choice"),
        ("{model: ndt, space: {}}", "a range for at least one"),
        ("{model: ndt, space: {dropout: {uniform: [0, 0.3]}}, kind: population, members: 1}", "members: found 1"),
        ("{model: ndt, space: {dropout: {uniform: [0, 0.3]}}, trials: 9}", "trials"),
        ("{model: ndt, space: {weight_decay: {uniform: [0, .inf]}}}", r"space.uniform: found \[0.0, inf\]"),
        ("{model: ndt, space: {batch: {choice: [0, 8, 8, 8, 8]}}, members: 30}", "batch: found 0"),
        ("{model: glm, space: {n_basis: {integers: [4, 8]}}, kind: population}", "keep"),
        ("{model: ndt, members: 3, members: 5, space: {dropout: {uniform: [0, 0.3]}}}", "'members' a second time"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "search.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        SearchSettings.read(tmp_path / "search.yaml")


def test_the_shipped_space_is_one() -> None:
    settings = SearchSettings.read(Path(__file__).parents[2] / "config" / "searches" / "ndt.yaml")
    searched = [trial.searched for trial in settings.first()]
    assert len(searched) == 20 and {values["mask_span"] for values in searched} == {1, 2, 3, 4}


@pytest.mark.parametrize("name", ["lfads", "ndt"])
def test_a_shipped_search_judges_all_trials_by_one_task(name: str) -> None:
    """Else it finds the setting that makes the task of its own validation easy: the least share to hide."""
    settings = SearchSettings.read(Path(__file__).parents[2] / "config" / "searches" / f"{name}.yaml")
    layout = Layout(20.0, 10, 0, 0, 3, {"s": 5}, {"s": [0, 1, 2, 3, 4]}, {"s": ["a"] * 5})
    counts = torch.poisson(torch.full((30, 10, 5), 1.0), torch.Generator().manual_seed(0)).to(torch.uint8)
    everything = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("s", counts, everything, everything, torch.full((30,), 10), 0)
    losses, hidden = set(), ("coordinated_dropout", "mask_ratio", "mask_token_ratio", "mask_random_ratio", "mask_span")
    for trial in settings.first()[:5]:
        shares = {key: trial.searched[key] for key in hidden if key in trial.searched}
        config = check_config(name, settings.fixed | shares)
        torch.manual_seed(0)
        network = load_model(name)(config, 0).build(layout).eval()
        torch.manual_seed(1)
        losses.add(network(batch)[{"lfads": "nll", "ndt": "masked_nll"}[name]].item())
    assert shares and len(losses) == 1


def test_another_score_is_read_of_the_fits_that_are_there(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trial(*cohort, RANDOM, tmp_path, 0, 1)
    monkeypatch.setattr(module, "fit", lambda *_: None)
    found = run_trial(*cohort, replace(RANDOM, score="validation_size"), tmp_path, 0, 1)
    rows = pd.read_csv(place(tmp_path, 0, 1) / "history.csv")
    assert found == rows["validation_size"].min() < rows["validation_loss"].min()


def test_the_score_is_that_of_the_weights_that_are_kept(cohort: Cohort, tmp_path: Path) -> None:
    fixed = {"steps": 30, "keep": "last", "learning_rate": 0.3, "schedule": "constant"}
    found = run_trial(*cohort, replace(RANDOM, fixed=fixed, space={"factors": SPACE["factors"]}), tmp_path, 0, 0)
    scores = pd.read_csv(place(tmp_path, 0, 0) / "history.csv")["validation_loss"]
    assert found == scores.iloc[-1] > scores.min()


def test_a_trial_is_fitted_again_when_what_it_starts_from_has_changed(cohort: Cohort, tmp_path: Path) -> None:
    space, weights = {"learning_rate": SPACE["learning_rate"]}, tmp_path / "start" / "model.safetensors"
    settings = replace(RANDOM, space=space, fixed={"steps": 3, "initial": str(weights)})
    scores = []
    for seed in (0, 1, 1):
        module.fit(*cohort, "tiny", TINY, {"steps": 1}, seed, tmp_path / "start")
        scores.append(run_trial(*cohort, settings, tmp_path / "search", 0, 0))
    assert scores[0] != scores[1] == scores[2]


@pytest.mark.slow
def test_asked_to_end_a_search_ends_its_processes_and_goes_on_to_the_same_table(cohort: Cohort, tmp_path: Path) -> None:
    settings = {"model": TINY, "space": {"learning_rate": {"log_uniform": [1e-3, 1e-1]}}, "members": 3}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(settings | {"fixed": {"steps": 1500, "evaluate_every": 500}}))
    arguments = ["--trains", *map(str, cohort[0]), "--split", str(cohort[1]), "--search", str(tmp_path / "search.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "pipeline_lib", "search", *arguments, "--jobs", "2", "--out", str(out)]
        return subprocess.Popen(command, env=environment)

    stopped = start(tmp_path / "out")
    while stopped.poll() is None and not list((tmp_path / "out").glob("*/*/.resume/progress.json")):
        time.sleep(0.05)
    children = psutil.Process(stopped.pid).children(recursive=True)
    assert len(children) > 1
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == 128 + signal.SIGTERM
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert start(tmp_path / "out").wait(300) == 0
    alone = search(*cohort, SearchSettings.read(tmp_path / "search.yaml"), tmp_path / "alone")
    found = pd.read_csv(tmp_path / "out" / "trials.csv")
    for name in ("member", "score", "learning_rate"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-6, err_msg=name)


def test_the_process_of_a_trial_that_ends_otherwise_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def process(name: str, code: int | None) -> SimpleNamespace:
        says = {word: partial(said.append, f"{name}: {word}") for word in ("start", "terminate", "join")}
        return SimpleNamespace(sentinel=name, exitcode=code, **says)

    looks = iter([None])
    monkeypatch.setattr(module.connection, "wait", lambda _: next(looks))
    with pytest.raises(FitError, match="the process of a trial ended with code 3"):
        module._run_processes([process("first", 3), process("second", None), process("third", None)], jobs=2)
    assert said == ["first: start", "second: start", "second: terminate", "second: join"]


@pytest.mark.slow
def test_processes_give_the_same_table(cohort: Cohort, tmp_path: Path) -> None:
    alone = search(*cohort, RANDOM, tmp_path / "alone")
    assert search(*cohort, RANDOM, tmp_path / "together", jobs=2).equals(alone)


def test_trials_run_one_by_one_as_the_search_runs_them(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(POPULATION, members=2, generations=2)
    whole = search(*cohort, settings, tmp_path / "whole")
    with pytest.raises(InputError, match="a finished trial"):
        run_trial(*cohort, settings, tmp_path / "jobs", 1, 0)
    for generation in (0, 1):
        for member in (1, 0):
            run_trial(*cohort, settings, tmp_path / "jobs", generation, member)
    monkeypatch.setattr(module, "fit", None)  # nothing is left to fit
    assert search(*cohort, settings, tmp_path / "jobs").equals(whole)
    with pytest.raises(InputError, match="member 0 to 1"):
        run_trial(*cohort, settings, tmp_path / "jobs", 0, 2)


def test_a_trial_that_failed_is_not_tried_again_until_something_changes(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def diverge(*arguments: object) -> None:
        tried.append(arguments)
        raise FitError("the loss is nan")

    monkeypatch.setattr(module, "fit", diverge)
    for _ in range(2):
        assert run_trial(*cohort, RANDOM, tmp_path, 0, 1) == np.inf
    assert len(tried) == 1
    run_trial(*cohort, replace(RANDOM, fixed={"steps": 7}), tmp_path, 0, 1)
    assert len(tried) == 2
