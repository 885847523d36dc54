"""The code's name: the same for comments, another for code, and what it covers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline_lib
from pipeline_lib.errors import InputError
from pipeline_lib.training import code_id as module
from pipeline_lib.training.code_id import code_id

FILES = {
    "__init__.py": '__version__ = "1"\n',
    "top.py": (
        '"""Doc."""\nfrom typing import TYPE_CHECKING\n\nfrom pipeline_lib.part import leaf\n\n'
        "if TYPE_CHECKING:\n    from pipeline_lib import typing_only\nelse:\n    from pipeline_lib import fallback\n\n"
        "def f(x):\n    from pipeline_lib.late import g\n    return g(x)\n"
    ),
    "late.py": "import pipeline_lib.far.near\nfrom .part.other import h\n\ndef g(x):\n    return h(x) + 1\n",
    "fallback.py": "B = 1\n",
    "far/__init__.py": "from .beside import C\n\nF = C\n",
    "far/beside.py": "C = 1\n",
    "far/near.py": "N = 1\n",
    "part/__init__.py": "SCALE = 2\n",
    "part/leaf.py": "VALUE = 1\nREST = VALUE[1:]\n",
    "part/other.py": "from . import sibling\n\ndef h(x):\n    return x\n",
    "part/sibling.py": "from . import empty\n\nS = 1\n",
    "part/empty.py": "",
    "typing_only.py": "T = 1\n",
    "unused.py": "U = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "pipeline_lib"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    monkeypatch.setattr(module, "ROOT", root)
    return root


def fresh(modules: list[str | Path]) -> str:
    for cached in (module._code_id, module._tree, module._file_content, module._remembered):
        cached.cache_clear()
    return code_id(modules)


@pytest.fixture(autouse=True)
def _forget() -> None:
    yield
    fresh([])


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("top.py", '"""Doc."""', '"""Other words."""', False),
        ("top.py", '"""Doc."""', "", False),
        ("top.py", "def f(x):\n", "# why\ndef f(x):\n\n    '''What.'''\n", False),
        ("top.py", "return g(x)", "return g( x )", False),
        ("part/leaf.py", "VALUE = 1", 'VALUE = 1\n"""What it is."""', False),
        ("part/empty.py", "", '"""What a package is."""', False),
        ("typing_only.py", "T = 1", "T = 2", False),
        ("unused.py", "U = 1", "U = 2", False),
        ("__init__.py", "1", "2", False),
        ("top.py", "return g(x)", "return g(-x)", True),
        ("late.py", "+ 1", "+ 2", True),  # imported inside a function
        ("part/leaf.py", "1", "1.0", True),  # another type
        ("part/leaf.py", "1", "'1'", True),
        ("part/leaf.py", "[1:]", "[:1]", True),  # the same parts in other places
        ("part/__init__.py", "2", "3", True),
        ("far/near.py", "1", "2", True),
        ("far/__init__.py", "F = C", "F = 2 * C", True),  # runs when far.near is imported
        ("far/beside.py", "1", "2", True),  # relative to the package, in its own __init__
        ("fallback.py", "1", "2", True),  # not for type checkers
        ("part/other.py", "return x", "return 2 * x", True),  # a relative import
        ("part/sibling.py", "1", "2", True),  # from . import
    ],
)
def test_what_changes_it(package: Path, file: str, old: str, new: str, changes: bool) -> None:
    before = fresh(["pipeline_lib.top"])
    content = (package / file).read_text()
    assert old in content
    (package / file).write_text(content.replace(old, new, 1))
    assert (fresh(["pipeline_lib.top"]) != before) == changes


def test_a_file_of_the_user_counts_with_what_it_imports(package: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("import numpy\nfrom pipeline_lib.part import leaf\n")
    before = fresh([own])
    (tmp_path / "elsewhere").mkdir()
    assert fresh([Path(shutil.copy(own, tmp_path / "elsewhere" / "own.py"))]) == before
    (package / "part" / "leaf.py").write_text("VALUE = 2\n")
    between = fresh([own])
    own.write_text(own.read_text() + "x = 1\n")
    assert len({before, between, fresh([own])}) == 3


def test_a_file_is_read_as_python_reads_it(package: Path, tmp_path: Path) -> None:
    """Notepad begins UTF-8 with a mark; a file may say that it is in another encoding, or be in none that is told."""
    own = tmp_path / "own.py"
    names = []
    for content in (
        "x = 'µV'\n".encode(),
        "x = 'µV'\n".encode("utf-8-sig"),
        "# coding: latin-1\nx = 'µV'\n".encode("latin-1"),
    ):
        own.write_bytes(content)
        names.append(fresh([own]))
    assert len(set(names)) == 1
    own.write_bytes("x = 'µV'\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"own\.py: .*utf-8"):
        fresh([own])


def test_what_cannot_be_hashed(package: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        fresh(["pipeline_lib.absent"])
    (tmp_path / "own.py").write_text("x = 1\ndef (\n")
    with pytest.raises(InputError, match="line 2"):
        fresh([tmp_path / "own.py"])


def test_models_depend_on_their_own_code_only() -> None:
    closure = {
        name: code_id(["pipeline_lib.training.fit", f"pipeline_lib.models.{name}"]) for name in ("psth", "mean_rate")
    }
    assert closure["psth"] != closure["mean_rate"]
    assert code_id(["pipeline_lib.training.fit"]) not in closure.values()


def test_it_is_quick_and_light() -> None:
    program = (
        "import sys, time; from pipeline_lib.training.code_id import code_id; start = time.process_time();"
        "code_id(['pipeline_lib.training.fit', 'pipeline_lib.models.smoothing']);"
        "print(time.process_time() - start); assert not {'numpy', 'pandas', 'yaml'} & set(sys.modules)"
    )
    seconds = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(seconds) < 0.5


def test_what_was_parsed_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes in one folder: the second parses nothing but what was edited."""
    (tmp_path / ".snakemake").mkdir()
    (tmp_path / "own.py").write_text("MODEL = 1\n")
    program = (
        "import ast, pathlib; from pipeline_lib.training.code_id import code_id; parse, read = ast.parse, []\n"
        "ast.parse = lambda text, name: (read.append(name), parse(text, name))[1]\n"
        "print(code_id([pathlib.Path('own.py'), 'pipeline_lib.trains.store']), len(read))"
    )

    def run() -> tuple[str, int]:
        environment = os.environ | {"PYTHONPATH": str(Path(pipeline_lib.__file__).parents[1])}
        command = [sys.executable, "-c", program]
        said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        name, parsed = said.stdout.split()
        return name, int(parsed)

    first, parsed = run()
    assert parsed > 10
    assert run() == (first, 0)
    (tmp_path / "own.py").write_text("MODEL = 2\n")
    second, parsed = run()
    assert second != first and parsed == 1
    (tmp_path / ".snakemake/trainyard_code.json").write_text("{ broken")
    assert run()[0] == second


@pytest.fixture
def remembered(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where processes in this folder remember what they have parsed."""
    (tmp_path / ".snakemake").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_READ", {})
    return tmp_path / ".snakemake/trainyard_code.json"


def test_a_file_of_another_size_is_parsed_though_its_time_is_the_same(package: Path, remembered: Path) -> None:
    before, edited = fresh(["pipeline_lib.top"]), package / "part/__init__.py"
    times = edited.stat().st_atime_ns, edited.stat().st_mtime_ns
    edited.write_text("SCALE = 20\n")
    os.utime(edited, ns=times)
    assert fresh(["pipeline_lib.top"]) != before


def test_what_another_version_remembered_is_parsed_anew(package: Path, remembered: Path) -> None:
    name = fresh(["pipeline_lib.top"])
    notes = json.loads(remembered.read_text())
    assert all(len(note) == 4 for note in notes.values()) and len(notes) > 5
    remembered.write_text(json.dumps({key: note[:3] for key, note in notes.items()}))
    assert fresh(["pipeline_lib.top"]) == name
