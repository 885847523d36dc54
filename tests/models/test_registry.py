"""Models by name or file, and the one clear line for what is wrong with them."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.models import registry
from pipeline_lib.models.contract import Model
from pipeline_lib.models.registry import check_config, load_model, model_names, model_source

MODEL_FILES = Path(__file__).parents[2] / "config" / "models"
OWN = """
from dataclasses import dataclass
import numpy as np
from pipeline_lib.models.contract import Model

@dataclass(frozen=True)
class Config:
    steps: int = 3
    rate: float = 0.5

class Own(Model):
    Config = Config
    sees = "nothing"
    def fit(self, data, run): pass
    def predict(self, data, session, samples): pass
    def state(self): return {}
    def load_state(self, state): pass

MODEL = Own
"""


def test_names_are_found_without_importing_torch() -> None:
    program = (
        "import sys; from pipeline_lib.models.registry import *; names = model_names();"
        "[check_config(name, {}) for name in ('mean_rate', 'psth', 'smoothing')];"
        "assert 'torch' not in sys.modules; print(*names)"
    )
    names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"mean_rate", "psth", "smoothing"} <= set(names)
    assert not {"contract", "registry", "gaussian", "poisson_ridge"} & set(names)


def test_a_file_dropped_into_the_package_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fresh.py").write_text("MODEL = None\n")
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "__init__.py").write_text("MODEL: type = None\n")
    (tmp_path / "helper.py").write_text("# MODEL = not here\nTHE_MODEL = None\n    \n")
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    assert model_names() == ["fresh", "large"]


@pytest.mark.parametrize("file", sorted(MODEL_FILES.glob("*.yaml")), ids=lambda file: file.stem)
def test_yaml_files_state_the_defaults(file: Path) -> None:
    settings = yaml.safe_load(file.read_text())
    implementation = settings.pop("implementation", file.stem)
    config = check_config(implementation, settings)
    assert implementation == file.stem
    assert config == load_model(implementation).Config()
    assert set(settings) == set(asdict(config))


def test_own_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    model = load_model(str(file))
    assert issubclass(model, Model) and model_source(str(file)) == file
    config = check_config(str(file), {"rate": 2})
    assert (config.steps, config.rate, type(config.rate)) == (3, 2.0, float)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stepz": 3}, ["stepz", "unknown key", "did you mean 'steps'?"]),
        ({"steps": "many"}, ["steps", "'many'", "a whole number"]),
        ({"steps": 2.5}, ["steps", "2.5", "a whole number"]),
        ({"rate": None}, ["rate", "None", "number"]),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, settings: dict, words: list[str]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(InputError) as caught:
        check_config(str(tmp_path / "own.py"), settings, "config/models/own.yaml")
    message = str(caught.value)
    assert message.startswith("config/models/own.yaml: ") and "\n" not in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("psth", {"smoothing": []}),
        ("psth", {"pseudo_trials": [0]}),
        ("smoothing", {"smoothing": [-1]}),
        ("smoothing", {"ridge": [float("nan")]}),
        ("smoothing", {"log_offset": 0}),
    ],
)
def test_impossible_settings_of_the_baselines(name: str, settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        check_config(name, settings)


def test_unknown_models_and_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'smoothing'"):
        load_model("smothing")
    with pytest.raises(InputError, match="no file"):
        load_model(str(tmp_path / "absent.py"))
    for content, word in (("x = 1\n", "MODEL"), ("def (:\n", "import"), ("MODEL = int\n", "subclass")):
        file = tmp_path / f"bad{len(content)}.py"
        file.write_text(content)
        with pytest.raises(InputError, match=word):
            load_model(str(file))
    silent = tmp_path / "silent.py"
    silent.write_text(OWN.replace('    sees = "nothing"\n', ""))
    with pytest.raises(InputError, match="sees"):
        load_model(str(silent))
    half = tmp_path / "half.py"
    half.write_text(OWN.replace("    def predict(", "    def predictt("))
    with pytest.raises(InputError, match=r"half.py: MODEL: found Own without predict; "):
        load_model(str(half))
