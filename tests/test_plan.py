"""A wrong configuration gives one line that names the place, what was found and what is accepted."""

from pathlib import Path

import pytest

from pipeline_lib.config import CohortConfig, Config, json_schemas
from pipeline_lib.errors import InputError
from pipeline_lib.parsing import parse
from pipeline_lib.plan import load_config, resolve

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.npz").write_bytes(b"")
    (tmp_path / "data/b.npz").write_bytes(b"")
    (tmp_path / "sheet.tsv").write_text(
        "session\tsource\tlocation\toptions\na\ttables\ta.npz\t\nb\ttables\tb.npz\tsort: true\n"
    )
    return tmp_path


def _config(**more: object) -> dict:
    return {"sessions": "sheet.tsv", "model_directory": str(REPOSITORY / "config/models")} | more


def _error(content: dict) -> str:
    with pytest.raises(InputError) as caught:
        resolve(content, "config.yaml")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_session_is_its_own_cohort(folder: Path) -> None:
    plan = resolve(_config(seeds=[0, 1], models=["mean_rate", "glm"]))
    assert list(plan.cohorts) == ["a", "b"]
    assert plan.fits == [(c, m, s) for c in "ab" for m in ("mean_rate", "glm") for s in (0, 1)]
    assert plan.sessions["b"].options == {"sort": True}


def test_a_cohort_changes_only_what_it_names(folder: Path) -> None:
    plan = resolve(
        _config(
            windows={"bin_size": 10, "after": 2.0},
            models={"mean_rate": {}, "glm": {"strength": 0.5}},
            per_session=False,
            cohorts={"both": {"sessions": ["*"], "windows": {"bin_size": 20}, "models": ["glm"]}},
        )
    )
    cohort = plan.cohorts["both"]
    assert cohort.sessions == ("a", "b")
    assert (cohort.windows.bin_size, cohort.windows.after) == (20, 2.0)
    assert list(cohort.models) == ["glm"]
    assert cohort.models["glm"].settings["strength"] == 0.5


def test_settings_of_a_cohort_go_before_those_of_all_and_those_before_the_file(folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models/mine.yaml").write_text("{implementation: glm, history: 1, folds: 2, strength: 3}")
    (folder / "models/psth.yaml").write_text("")
    plan = resolve(
        {
            "sessions": "sheet.tsv",
            "data": "data",
            "model_directory": "models",
            "models": {"mine": {"history": 10, "folds": 20}, "psth": {}},
            "splits": {"block": 7.0, "heldout_units": 3},
            "sources": {"tables": {"sort": False, "min_rate": 0.5}},
            "cohorts": {
                "a": {"model_settings": {"mine": {"history": 100}}, "splits": {"heldout_units": 5}},
                "none": {"sessions": ["b"], "models": []},
                "one": {"sessions": ["b"], "models": ["psth"], "model_settings": {"mine": {"history": 100}}},
            },
        }
    )
    assert plan.cohorts["a"].models["mine"].settings == {"history": 100, "folds": 20, "strength": 3}
    assert plan.cohorts["b"].models["mine"].settings == {"history": 10, "folds": 20, "strength": 3}
    assert plan.cohorts["a"].models["mine"].implementation == "glm"
    assert (plan.cohorts["a"].splits.block, plan.cohorts["a"].splits.heldout_units) == (7.0, 5)
    assert plan.cohorts["none"].models == {} and list(plan.cohorts["one"].models) == ["psth"]
    assert plan.scored == ["a", "b", "one"]
    assert plan.without_effect == ["cohorts.one.model_settings.mine"], "which a person is told"
    alone = plan.config.model_copy(update={"cohorts": {"a": CohortConfig(models=[])}, "per_session": False})
    assert resolve(alone.model_dump()).without_effect == ["models.mine", "models.psth"]
    assert plan.sessions["a"].options == {"sort": False, "min_rate": 0.5}
    assert plan.sessions["b"].options == {"sort": True, "min_rate": 0.5}, "the sheet goes before"


def test_which_fits_are_copied_and_which_are_made_together(folder: Path) -> None:
    """By what their implementations draw, whatever they are called; of one seed there is nothing to copy."""
    (folder / "models").mkdir()
    for name, implementation in {"ndt": "psth", "mine": "ndt", "ours": "ndt"}.items():
        (folder / f"models/{name}.yaml").write_text(f"implementation: {implementation}")
    models = {"ndt": {}, "mine": {"ensemble": True}, "ours": {}}
    two, one = (resolve(_config(model_directory="models", models=models, seeds=seeds)) for seeds in ([1, 0], [1]))
    assert (two.copied({"ndt"}), two.ensembles) == (["ndt"], ["mine"])
    assert (one.copied({"ndt"}), one.ensembles) == ([], [])
    assert "ensemble" not in two.cohorts["a"].models["mine"].settings


def test_the_largest_seed_is_one(folder: Path) -> None:
    assert resolve(_config(seeds=[2**32 - 1])).config.seeds == [2**32 - 1]


def test_what_is_not_here_lies_in_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "home").mkdir()
    (folder / "home/c.npz").touch()
    rows = ["# a comment", "", "s\ttables\tsimulated:sim", "r\tallen\tallen:757216464", " h \ttables\t~/c.npz"]
    (folder / "sheet.tsv").write_text("\n".join(["session\tsource\tlocation", *rows]))
    simulations = {"sim": {"simulator": "glm"}}
    sessions = resolve(_config(data="cache", simulations=simulations, models=[])).sessions
    assert sessions["s"].location == "results/simulated/sim" and sessions["s"].simulation == "sim"
    assert sessions["r"].location.startswith("cache/allen/") and sessions["r"].remote
    assert sessions["h"].location == str(folder / "home/c.npz")
    without = _config(data="cache", simulations=simulations, models=[], model_directory="nowhere")
    assert resolve(without).fits == [], "no model, no folder of models"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"modles": ["glm"]}, ["modles", "unknown key", "'models'"]),
        ({"windows": {"bin_sise": 5}}, ["windows.bin_sise", "'bin_size'"]),
        ({"windows": {"bin_size": "five"}}, ["windows.bin_size", "'five'"]),
        ({"windows": {"bin_size": 5, "after": 0.0123}}, ["windows.after", "0.0123", "5.0-ms bins"]),
        ({"splits": {"fractions": [0.5, 0.1, 0.1]}}, ["splits.fractions", "sum 1"]),
        ({"models": ["gml"]}, ["models", "'gml'", "'glm'"]),
        ({"seeds": []}, ["seeds", "at least one"]),
        ({"seeds": [1, 1]}, ["seeds", "[1, 1]"]),
        ({"seeds": [-1]}, ["seeds", "[-1]"]),
        ({"seeds": [2**32]}, ["seeds", "4294967296"]),
        ({"counts": [5, 0.005]}, ["counts", "0.005"]),
        ({"counts": [float("nan")]}, ["counts", "nan"]),
        ({"cohorts": {"x": {"sessions": ["a", "b", "a"]}}}, ["cohorts.x", "'a' twice"]),
        ({"cohorts": {"x": {"sessions": ["aa"]}}}, ["cohorts.x", "'aa'"]),
        ({"cohorts": {"a": {"windows": {"lenght": 1}}}}, ["cohorts.a", "'length'"]),
        ({"cohorts": {"../x": {"sessions": ["a"]}}}, ["'../x'", "letters"]),
        ({"simulations": {"s": {"simulator": "eif", "layuot": "allen"}}}, ["layuot", "'layout'"]),
        ({"simulations": {"s": {"simulator": "glm", "seed": -1}}}, ["simulations.s.seed", "-1"]),
        ({"simulations": {"s": {"simulator": "lorentz"}}}, ["'lorentz'", "'lorenz'"]),
        ({"sources": {"tables": {"srot": True}}}, ["srot", "'sort'"]),
        ({"sessions": "no.tsv"}, ["no.tsv"]),
        ({"models": {"glm": 3}}, ["models.glm: found 3", "a mapping"]),
        ({"models": "glm"}, ["models: found 'glm'", "a list or a mapping"]),
        ({"models": {"glm": {"implementation": 3}}}, ["models.glm.implementation", "3"]),
        ({"model_directory": "none"}, ["model_directory", "no folder none"]),
        ({"windows": 3}, ["windows: found 3", "a mapping"]),
        ({"seeds": "x", "windows": {"bin_sise": 5}}, ["seeds: found 'x'"]),
        ({"windows": {"bin_size": -1}}, ["windows.bin_size", "-1"]),
        ({"windows": {"bin_size": 0.01}}, ["windows: bin_size: found 0.01", "milliseconds", "of 0.01 s is 10"]),
        ({"cohorts": {"a": {"windows": {"bin_size": 0.1}}}}, ["cohorts.a: windows: bin_size: found 0.1"]),
        ({"counts": [5, 0.02]}, ["counts: found 0.02", "milliseconds"]),
        ({"results": ""}, ["results: found ''"]),
        ({"results": "made {here}"}, ["results: found 'made {here}'", "braces"]),
        ({"results": "sheet.tsv"}, ["results: found the file sheet.tsv"]),
        ({"data": "sheet.tsv"}, ["data: found the file sheet.tsv"]),
        ({"results": "made}"}, ["results: found 'made}'", "braces"]),
        ({"per_session": False}, ["cohorts: found none", "per_session"]),
        ({"cohorts": {"a": {"model_settings": {"gml": {}}}}}, ["cohorts.a: model_settings: found 'gml'", "'glm'"]),
        ({"models": ["../glm"]}, ["'../glm'", "letters"]),
        ({"searches": {"../ndt": ["a"]}}, ["'../ndt'", "letters"]),
        ({"simulations": {"../s": {"simulator": "glm"}}}, ["'../s'", "letters"]),
        ({"sources": {"table": {"sort": True}}}, ["sources: found 'table'", "'tables'"]),
        ({"cohorts": {"x": {}}}, ["cohorts.x", "no session is called 'x'"]),
        ({"simulations": {"s": {"simulator": "glm", "settings": {"units": "a\nb"}}}}, ["s.units", r"'a\nb'"]),
        ({"windows": {"bin_size": 1e308}}, ["windows.bin_size", "1e+308"]),
        ({"evaluation": {"decoding": {"w": {"signal": "w", "lag": float("inf")}}}}, ["decoding.w.lag", "inf"]),
        ({"evaluation": {"few_shot": [0]}}, ["evaluation.few_shot.0: found 0"]),
        ({"evaluation": {"decoding": {"wheel": {}}}}, ["evaluation.decoding.wheel: found nothing"]),
        ({"evaluation": {"few_shot": [4, 9, 4]}}, ["evaluation.few_shot: found 4 twice"]),
        ({"evaluation": {"resamples": 10**12}}, ["evaluation.resamples: found 1000000000000", "1000000"]),
        ({"downloads": {"accept": ["abc"]}}, ["downloads.accept.0: found 'abc'", "a SHA-256: 64 of"]),
        ({"downloads": {"ledger": "data"}}, ["downloads.ledger: found the folder data", "a file"]),
        ({"downloads": {"cache": "sheet.tsv"}}, ["downloads.cache: found the file sheet.tsv", "a folder"]),
        ({"counts": [1e300]}, ["counts: found 1e+300", "at most 1e+12"]),
        ({"sources": {"tables": {"min_rate": float("nan")}}}, ["sources.tables.min_rate: found nan", "a number"]),
        ({"threads": True}, ["config.yaml: threads: found True; accepted: a number"]),
        ({"seeds": [0, True]}, ["config.yaml: seeds.1: found True; accepted: a number"]),
        ({"windows": {"after": True}}, ["windows.after: found True; accepted: a number"]),
        ({"splits": {"heldout_units": True}}, ["splits.heldout_units: found True; accepted: a number"]),
        ({"cohorts": {"a": {"splits": {"gap": True}}}}, ["cohorts.a: splits: gap: found True; accepted: a number"]),
        ({"evaluation": {"decoding": {"w": {"signal": "w", "lag": True}}}}, ["decoding.w.lag: found True"]),
        ({"sources": {"tables": {"min_rate": True}}}, ["(a): option min_rate: found True; accepted: a number"]),
    ],
)
def test_a_mistake_in_the_config_is_one_line(folder: Path, content: dict, parts: list[str]) -> None:
    text = _error(_config() | content)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("sheet", "parts"),
    [
        ("session\tsource\tlocation\na\ttables\ta.npz\na\ttables\tb.npz\n", ["row 2", "a second time"]),
        ("session\tsource\tlocation\na\ttables\tc.npz\n", ["row 1", "c.npz"]),
        ("session\tsource\tlocation\na\ttable\ta.npz\n", ["row 1", "'tables'"]),
        ("session\tsource\tlocation\n../a\ttables\ta.npz\n", ["row 1", "letters"]),
        ("session\tsource\tlocation\na b\ttables\ta.npz\n", ["row 1", "'a b'", "letters"]),
        ("session\tsource\tlocation\na\ttables\tsimulated:x\n", ["row 1 (a)", "there is none", "simulations"]),
        ("session\tsource\tlocation\na\ttables\tallen:757216464\n", ["row 1 (a)", "'tables'", "allen or nwb"]),
        ("session\tsource\tlocation\na\ttables\t\n", ["row 1 (a)", "location: found nothing"]),
        ("session\tsource\tlocation\na\ttables\t~nobody_here/a.npz\n", ["row 1 (a)", "home folder ~nobody_here"]),
        ("session  source  location\na  tables  a.npz\n", ["columns", "tabs between"]),
        ("session\tsource\tlocation\na  tables  a.npz\n", ["row 1", "'a  tables  a.npz'", "a tab between"]),
        ("session\tsource\tlocation\tlocation\na\ttables\ta.npz\tb.npz\n", ["'location' twice"]),
        (f"session\tsource\tlocation\n{'a' * 200}\ttables\ta.npz\n", ["row 1", "up to 150"]),
        ("session\tsource\tlocation\toptions\na\ttables\ta.npz\tsort: true, sort: false\n", ["row 1", "once"]),
        ("session\tsource\tlocation\toptions\na\ttables\ta.npz\tno: true, sort: false\n", ["row 1", "found 'no: true"]),
        ("session\tsource\tlocation\toptions\na\ttables\ta.npz\nb\ttables\tb.npz\tsrot: 1\n", ["row 2 (b)"]),
        ("session\tsource\tplace\na\ttables\ta.npz\n", ["'place'"]),
        ("session\tsource\na\ttables\n", ["location"]),
        ("session\tsource\tlocation\n", ["no session"]),
        ("session\tsource\tlocation\toptions\na\ttables\ta.npz\t[1\n", ["row 1", "options"]),
        ("session\tsource\tlocation\toptions\na\ttables\ta.npz\tsort: true,\ttime: t\n", ["row 1", "'time: t'"]),
        ("session\tsource\tlocation\na\ttables\té.npz\n".encode("latin-1"), ["sheet.tsv", "UTF-8"]),
        ("session\tsource\tlocation\na\ttables\ta.npz\n".encode("utf-16"), ["sheet.tsv", "UTF-8"]),
    ],
)
def test_a_mistake_in_the_sheet_is_one_line(folder: Path, sheet: str | bytes, parts: list[str]) -> None:
    (folder / "sheet.tsv").write_bytes(sheet if isinstance(sheet, bytes) else sheet.encode())
    text = _error(_config())
    assert all(part in text for part in parts), text


def test_a_sheet_as_spreadsheets_save_it(folder: Path) -> None:
    """With a byte-order mark, the line ends of Windows, and empty cells after the last."""
    (folder / "sheet.tsv").write_bytes(b"\xef\xbb\xbfsession\tsource\tlocation\r\na\ttables\ta.npz\t\t\r\n")
    assert list(resolve(_config()).sessions) == ["a"]


def test_a_key_with_nothing_behind_it_is_not_given(folder: Path) -> None:
    plan = resolve(_config(models={"mean_rate": None}, cohorts=None, windows=None, figures=None))
    assert list(plan.cohorts) == ["a", "b"] and list(plan.cohorts["a"].models) == ["mean_rate"]
    assert resolve(_config(cohorts={"a": None})).cohorts["a"].sessions == ("a",)


def test_a_key_stands_once(folder: Path) -> None:
    (folder / "config.yaml").write_text("sessions: sheet.tsv\ncohorts:\n  a: {}\n  b: {}\n  a: {}\n")
    with pytest.raises(InputError, match=r"'a' a second time in line 5, column 3"):
        load_config(folder / "config.yaml")


@pytest.mark.parametrize("key", ["1", "no", "2024-01-02", "~", "[a]"])
def test_a_key_is_text(folder: Path, key: str) -> None:
    """Of these YAML makes a number, `false`, a date, nothing and a list: not what stands there."""
    (folder / "models").mkdir()
    (folder / "models/glm.yaml").write_text(f"history: {{a: 1, ? {key} : 2}}\n")
    with pytest.raises(InputError, match=r"models/glm.yaml: YAML: found a key that is no text.*line 1, column 19"):
        resolve(_config(model_directory="models", models=["glm"]))


def test_keys_may_be_merged(folder: Path) -> None:
    text = "sessions: sheet.tsv\nmodels: []\ncohorts:\n  a: &a {windows: {bin_size: 8}}\n  b: {<<: *a}\n"
    (folder / "config.yaml").write_text(text)
    assert load_config(folder / "config.yaml").cohorts["b"].windows.bin_size == 8


@pytest.mark.parametrize(("name", "path"), [("results", "link"), ("data", "link/deep")])
def test_a_link_to_a_disk_that_is_not_there_is_named(folder: Path, name: str, path: str) -> None:
    """Else the first job says that there is no folder in it, and `make list` that nothing is done."""
    Path("link").symlink_to("/mnt/not/mounted")
    with pytest.raises(InputError) as error:
        resolve(_config(**{name: path}))
    assert f"{name}: found link, a link to /mnt/not/mounted, which is not there;" in str(error.value)


def test_folders_are_spelt_in_one_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    config = resolve(_config(results="./made//here/", data="~/data/")).config
    assert (config.results, config.data) == ("made/here", str(folder / "data"))


def test_a_run_in_a_folder_of_its_own_has_the_models_and_searches_of_the_repository(folder: Path) -> None:
    plan = resolve({"sessions": "sheet.tsv", "models": ["ndt"], "searches": {"ndt": ["a"]}})
    assert plan.config.model_directory == str(REPOSITORY / "config/models")
    assert plan.cohorts["a"].models["ndt"].settings["read_in"] == 64 and plan.searches["ndt"].model == "ndt"
    (folder / "config/models").mkdir(parents=True)
    (folder / "config/models/mine.yaml").write_text("implementation: mean_rate\n")
    assert list(resolve({"sessions": "sheet.tsv", "models": ["mine"]}).cohorts["a"].models) == ["mine"]
    with pytest.raises(InputError, match="one of mine"):
        resolve({"sessions": "sheet.tsv", "models": ["ndt"]})
    with pytest.raises(InputError, match="no folder models"):
        resolve({"sessions": "sheet.tsv", "models": ["ndt"], "model_directory": "models"})


def test_the_schemas_are_those_of_the_definitions() -> None:
    import json

    for name, schema in json_schemas().items():
        written = json.loads((REPOSITORY / "workflow/schemas" / name).read_text())
        assert written == json.loads(json.dumps(schema)), "run `python -m pipeline_lib schemas`"


def test_every_key_is_explained_in_the_readme() -> None:
    text = (REPOSITORY / "config/README.md").read_text()
    definitions = Config.model_json_schema()["$defs"]
    keys = [
        *Config.model_fields,
        *definitions["WindowSettings"]["properties"],
        *definitions["SplitSettings"]["properties"],
    ]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_the_shipped_configurations_are_valid() -> None:
    import yaml

    for path in [REPOSITORY / "config/config.yaml", *(REPOSITORY / "config/runs").glob("*.yaml")]:
        parse(Config, yaml.safe_load(path.read_text()), str(path))


def test_searches_belong_to_cohorts_and_are_read_before_any_job(folder: Path) -> None:
    (folder / "searches").mkdir()
    text = "{model: smoothing, space: {log_offset: {log_uniform: [1.0e-5, 1.0e-3]}}, members: 3}"
    (folder / "searches/offset.yaml").write_text(text)
    searched = {"search_directory": "searches", "models": ["mean_rate"]}
    plan = resolve(_config(searches={"offset": ["a"]}, **searched))
    assert plan.searched == [("offset", "a")] and plan.searches["offset"].rounds == 1
    assert resolve(_config(**searched)).searched == []
    assert "'a'" in _error(_config(searches={"offset": ["aa"]}, **searched))
    assert "'a' twice" in _error(_config(searches={"offset": ["a", "a"]}, **searched))
    assert "did you mean 'offset'?" in _error(_config(searches={"ofset": ["a"]}, **searched))
    (folder / "searches/offset.yaml").write_text(text[:-1] + ", seed: -1}")
    assert "offset.yaml: seed: found -1; accepted: a whole number" in _error(
        _config(searches={"offset": ["a"]}, **searched)
    )
    (folder / "searches/offset.yaml").write_text(text.replace("log_offset", "log_ofset"))
    assert "did you mean 'log_offset'?" in _error(_config(searches={"offset": ["a"]}, **searched))


def test_a_number_is_the_same_setting_however_it_is_written(folder: Path) -> None:
    """YAML takes 1e-3 for text: beside 0.001 it would make everything again. What is text by nature stays so."""

    def plans(number: object, other: object) -> tuple:
        row = f"a\ttables\ta.npz\tmin_rate: {number}, unit: 1e5"
        (folder / "sheet.tsv").write_text(f"session\tsource\tlocation\toptions\n{row}\n")
        signals = ["1e5", {"name": "run", "history": other}]
        plan = resolve(
            _config(
                models={"glm": {"strength": number, "signals": signals}},
                cohorts={"a": {"model_settings": {"glm": {"ratio": other}}}},
            )
        )
        settings = [each.models["glm"].settings for each in plan.cohorts.values()]
        return settings, plan.sessions["a"].options

    assert plans("1e-3", "1e-1") == plans(0.001, 0.1)
    settings, options = plans("1e-3", "1e-1")
    assert settings[0]["signals"][0] == options["unit"] == "1e5"
    typed = resolve(_config(models={"glm": {"strength": 1, "n_basis": 8.0}})).cohorts["a"].models["glm"].settings
    assert repr((typed["strength"], typed["n_basis"])) == "(1, 8.0)", "as it stands there: nothing is fitted anew"


def test_what_is_decoded_is_checked(folder: Path) -> None:
    plan = resolve(_config(evaluation={"decoding": {"hand": {"signal": "hand", "lag": 0.1}}, "few_shot": [4]}))
    assert plan.config.evaluation.decoding["hand"].lag == 0.1
    assert "one of signal, choice, timing" in _error(_config(evaluation={"decoding": {"hand": {}}}))
    assert "did you mean 'signal'?" in _error(_config(evaluation={"decoding": {"hand": {"signl": "hand"}}}))


def test_averages_of_the_models_named_where_there_are_several_seeds(folder: Path) -> None:
    several = _config(seeds=[0, 2], models=["mean_rate", "glm"], average_seeds=["glm"])
    plan = resolve(several | {"cohorts": {"b": {"models": ["mean_rate"]}}})
    assert plan.averages == [("a", "glm")] and len(plan.fits) == 6
    assert plan.predicted("a")[2:] == [("a", "glm", 0), ("a", "glm", 2), ("a", "glm", "mean")]
    assert plan.predicted("b") == [("b", "mean_rate", 0), ("b", "mean_rate", 2)]
    one = resolve(several | {"seeds": [2]})
    assert one.averages == one.averaged == [] and one.predicted("a") == [("a", "mean_rate", 2), ("a", "glm", 2)]
    assert "average_seeds: found 'gml'" in _error(several | {"average_seeds": ["gml"]})
    assert "each once" in _error(several | {"average_seeds": ["glm", "glm"]})
