"""What the code never does, whatever a file or a configuration says: looked for in the code itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted([*(REPOSITORY / "pipeline_lib").rglob("*.py"), *(REPOSITORY / "workflow").rglob("*.py")])
RULES = sorted([*(REPOSITORY / "workflow").rglob("*.smk"), REPOSITORY / "workflow/Snakefile"])
NEVER = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen"),
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "pd.read_pickle",
        "joblib.load",
        "marshal.loads",
        "shelve.open",
    ),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("tarfile.open", "shutil.unpack_archive"),
}
ONLY_WITH = {"torch.load": ("weights_only", True)}
NEVER_WITH = {"np.load": ("allow_pickle", True), "subprocess.run": ("shell", True), "subprocess.Popen": ("shell", True)}
NEVER_METHODS = {"extractall": "an archive's own paths decide where it unpacks to"}


def calls(code: str) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Line, dotted name and constant keyword arguments of every call."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            given = {each.arg: each.value.value for each in node.keywords if isinstance(each.value, ast.Constant)}
            yield node.lineno, ast.unparse(node.func), given


def faults(code: str) -> list[str]:
    found = []
    for line, name, given in calls(code):
        option, value = ONLY_WITH.get(name, (None, None))
        if option and given.get(option) is not value:
            found.append(f"{line}: {name} without {option}={value}")
        option, value = NEVER_WITH.get(name, (None, None))
        if option and given.get(option) is value:
            found.append(f"{line}: {name} with {option}={value}")
        if name in NEVER or name.rpartition(".")[2] in NEVER_METHODS:
            found.append(f"{line}: {name}")
    return found


def test_no_module_evaluates_unpickles_or_starts_a_shell() -> None:
    assert len(MODULES) > 150
    found = [f"{path.relative_to(REPOSITORY)}:{each}" for path in MODULES for each in faults(path.read_text())]
    assert not found, found


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "zipfile.ZipFile(path).extractall(folder)",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert len(faults(code)) == 1


def test_paths_and_texts_of_the_configuration_are_quoted_for_the_shell() -> None:
    """No quotes are needed by names, numbers and codes, which hold no sign of the shell, and by what was quoted."""
    numbers = "seeds|counts|cohorts|parallel"
    plain = rf"wildcards\.\w+|params\.(code|fit\[code\]|simulation\[\w+\]|source|names|sdk|{numbers})"
    quoted = r"params\.(config|how|cache|ledger|timing)"
    for path in RULES:
        for command in re.findall(r'shell:\n((?:\s+"[^\n]*"\n)+)', path.read_text()):
            for field in re.findall(r"(?<!\{)\{([^{}:]+)\}", command):
                assert re.fullmatch(f"{plain}|{quoted}", field), f"{path.name}: {{{field}}} is not quoted (:q)"
