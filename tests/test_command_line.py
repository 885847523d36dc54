"""The command line: complete help, one line for wrong input, exit codes that a scheduler understands."""

import argparse
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline_lib.__main__ import _parser, main
from pipeline_lib.arguments import SHEETS, as_argument, folder, keep_sheet, read_mapping, sheet_of_run
from pipeline_lib.errors import Failure
from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source

VERBS = [
    "simulate", "record", "convert", "split", "fit", "copy", "predict", "average", "search", "evaluate", "collect",
    "export", "figure", "report", "status", "list",
    "check", "where", "verify", "schemas",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_every_option_says_what_it_is_and_what_it_is_by_default() -> None:
    (verbs,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        for action in verb._actions:
            assert action.help, f"{name}: {action.dest}"
            silent = action.default in (None, "", [], {}, argparse.SUPPRESS) or action.nargs == 0
            told = "default: " in action.help or action.type is read_mapping
            assert silent or told, f"{name}: {action.dest}, by default {action.default}"


def test_wrong_input_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code = main(["convert", "--recording", str(tmp_path / "none"), "--out", str(tmp_path / "trains")])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert "recording.json" in lines[0]
    assert not (tmp_path / "trains").exists()


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["collect", str(tmp_path / "none.parquet"), "--out", str(tmp_path / "all.parquet")]) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_python_of_another_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert main(["doctor"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1 and "no module psutil" in complaint and "activate" in complaint


def test_a_module_that_this_package_lacks_is_no_matter_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    monkeypatch.setitem(sys.modules, "pipeline_lib.doctor", None)
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_a_failure_says_how_it_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Stopped(Failure):
        exit_code = 143

    def stop(*_: object, **__: object) -> None:
        raise Stopped("checkpointed at step 3")

    monkeypatch.setattr("pipeline_lib.training.status.watch", stop)
    assert main(["status"]) == 143
    assert capsys.readouterr().err == "error: checkpointed at step 3\n"


def test_a_folder_may_be_given_by_the_file_that_completes_it() -> None:
    parser = argparse.ArgumentParser()
    folder(parser, "--out", "folders", nargs="+")
    given = parser.parse_args(["--out", "trains/a/manifest.json", "trains/b"]).out
    assert given == [Path("trains/a"), Path("trains/b")]


def test_no_scores_are_a_mistake_unless_what_is_available_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "all.parquet"
    assert main(["collect", "--out", str(out)]) == 2 and not out.exists()
    assert main(["collect", str(tmp_path / "day0/metrics.parquet"), "--out", str(out)]) == 2 and not out.exists()
    assert "day0/metrics.parquet: table: found no such file" in capsys.readouterr().err
    assert main(["collect", "--available", "--out", str(out)]) == 0 and out.exists()


def test_a_configuration_without_models_has_an_empty_table_of_scores(tmp_path: Path) -> None:
    """Recordings can be looked at before anything is fitted."""
    (tmp_path / "spikes.csv").write_text("time,unit\n")
    (tmp_path / "sheet.tsv").write_text("session\tsource\tlocation\none\ttables\tspikes.csv\n")
    config = json.dumps({"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path), "models": []})
    assert main(["collect", "--config", config, "--out", str(tmp_path / "all.parquet")]) == 0
    assert pd.read_parquet(tmp_path / "all.parquet").empty


def test_a_file_that_is_written_while_it_is_read_makes_no_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still being copied, or somebody saves it: older than the recording, it would never be read again."""
    spikes, trials = tmp_path / "spikes.csv", tmp_path / "trials.csv"
    spikes.write_text("time,unit\n0.5,1\n0.7,1\n")
    trials.write_text("start,stop\n0,1\n")
    record = ["record", "--session", "day1", "--source", "tables", "--location", str(spikes)]
    record += ["--options", "{trials: trials.csv}", "--out", str(tmp_path / "r")]

    def read(*arguments: object) -> Recording:
        recording = read_source(*arguments)
        trials.write_text("start,stop\n0,1\n1,2\n")
        return recording

    with monkeypatch.context() as patch:
        patch.setattr("pipeline_lib.sources.read_source", read)
        assert main(record) == 2 and not (tmp_path / "r").exists()
    assert "trials.csv: content: found another one after it was read" in capsys.readouterr().err
    assert main(record) == 0 and len(Recording.read(tmp_path / "r").trials) == 2


def test_a_folder_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "--config", str(tmp_path)]) == 2
    assert "found a folder; accepted: a configuration file" in capsys.readouterr().err


def test_a_mapping_may_be_json_yaml_or_a_file(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("units: 3\nduration: 2.0\n")
    made = []
    texts = ('{"units": 3, "duration": 2.0}', "{units: 3, duration: 2.0}", f"@{settings}", str(settings))
    for number, text in enumerate(texts):
        out = tmp_path / str(number)
        arguments = ["simulate", "--simulator", "glm", "--name", "s", "--settings", text, "--out", str(out)]
        assert main(arguments) == 0
        made.append((out / "simulation.json").read_bytes())
    assert len(set(made)) == 1


def test_what_a_rule_writes_is_what_a_verb_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON read as YAML makes text of 1e-05 and two halves of a sign; and an argument has a longest length."""
    monkeypatch.chdir(tmp_path)
    settings = {"strength": 1e-05, "data": "mäuse/𝒳", "none": None, "lag": [1, 0.5]}
    cohorts = {f"cohort{k}": {"windows": settings} for k in range(2000)}
    for content in (settings, cohorts):
        assert read_mapping(as_argument(content)) == content
    assert max(len(as_argument(content)) for content in (settings, cohorts)) < 131_072
    assert as_argument(cohorts) != as_argument(cohorts | {"one": 1}), "what a run was told does not change under it"


@pytest.mark.parametrize("text", ["[1]", "{a: 1, a: 2}", "{no: 1}", "{a: ", "@nowhere.yaml", "a: " + "[" * 5000])
def test_no_mapping_is_one_line(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read_mapping(text)
    assert "\n" not in str(caught.value)


def test_import_of_the_package_costs_less_than_a_third_of_a_second() -> None:
    script = "import time; t = time.process_time(); import pipeline_lib; print(time.process_time() - t)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 0.3


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--cohort", "lorentz", "--model", "glm"], ["'lorentz'", "'lorenz'"]),
        (["--cohort", "lorenz", "--model", "gml"], ["'gml'", "'glm'"]),
        (["--cohort", "lorenz", "--model", "glm", "--seed", "7"], ["7", "[0]"]),
    ],
)
def test_a_cell_that_is_not_planned_is_named(
    arguments: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    assert main(["where", "scores", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert all(part in complaint for part in parts), complaint


def test_the_cell_of_averaged_rates_is_where_the_mean_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    demo = yaml.safe_load(Path("config/config.yaml").read_text())
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(demo | {"seeds": [0, 1], "average_seeds": ["psth"]}))
    where = ["where", "scores", "--config", str(config), "--cohort", "lorenz", "--seed", "mean", "--model"]
    assert main([*where, "psth"]) == 0
    assert capsys.readouterr().out.strip().endswith("/scores/lorenz/psth/mean/metrics.parquet")
    assert main([*where, "glm"]) == 2
    assert "found mean; accepted: one of [0, 1]" in capsys.readouterr().err


def test_watching_ends_where_nobody_watches(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make status` in a script would otherwise write to its log for ever."""

    def again(_: float) -> None:
        raise AssertionError("a second table")

    monkeypatch.setattr("time.sleep", again)
    assert main(["status", "--watch", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no fit is running\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(AssertionError, match="a second table"):
        main(["status", "--watch", "--results", str(tmp_path)])


@pytest.mark.parametrize("when", ["at once", "at the end"])
def test_who_has_read_enough_hears_no_more(when: str) -> None:
    """`make list | head`: the pipe is closed before all is written."""
    read, write = os.pipe()
    os.close(read)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment = buffered | ({"PYTHONUNBUFFERED": "1"} if when == "at once" else {})
    command, folder = [sys.executable, "-m", "pipeline_lib", "list"], Path(__file__).resolve().parents[1]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=folder, env=environment)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_pipe_of_somebody_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs up must not look like a fetch that is done."""

    def hang_up(_: Path) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("pipeline_lib.plan.load_config", hang_up)
    assert main(["list"]) == 1


def test_what_cannot_be_read_is_not_said_of_the_place_that_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A library's error has neither a number nor a name; the system's has the number, and then it is the writing."""
    for error, place in ((OSError("no such format"), "a file"), (OSError(errno.ENOSPC, "full"), "out.parquet")):

        def fail(*_: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr("pipeline_lib.evaluation.evaluate.collect", fail)
        assert main(["collect", "a.parquet", "--out", "out.parquet"]) == 1
        assert f"error: {place}: " in capsys.readouterr().err


def test_a_job_finds_the_copy_of_each_sheet_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules of a workflow have a sheet each; on a machine that has no copy, the sheet is what there is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(SHEETS, "{}")
    sheets = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for sheet in sheets:
        sheet.write_text(sheet.name)
    copies = [keep_sheet(str(sheet)) for sheet in sheets]
    sheets[0].write_text("edited")
    assert [sheet_of_run(str(sheet)) for sheet in sheets] == list(map(str, copies))
    assert Path(sheet_of_run("~/a.tsv")).read_text() == "a.tsv"
    assert sheet_of_run("c.tsv") == "c.tsv"
    copies[0].unlink()
    assert sheet_of_run(str(sheets[0])) == str(sheets[0])
