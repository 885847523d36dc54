"""What may come of input that nobody expected: a whole result, or one line and no result. Never a traceback."""

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from pipeline_lib.__main__ import main

EXAMPLES = int(os.environ.get("TRAINYARD_FUZZ", "12"))
"""Examples a test; the default suite takes few, a nightly run as many as it likes."""

FEW = settings(
    max_examples=EXAMPLES,
    derandomize="TRAINYARD_FUZZ" not in os.environ,
    phases=(Phase.explicit, Phase.generate),  # an example is a whole session: shrinking it would take minutes
)


def ends_well(arguments: list[str], capsys: pytest.CaptureFixture, out: Path | None = None, final: str = "") -> bool:
    """Run a verb of the command line; True where it succeeded. `out` is the folder it writes, complete with `final`."""
    capsys.readouterr()
    code = main(arguments)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    if code == 0:
        assert not errors
        assert out is None or (out / final).is_file()
        return True
    assert code == 2, f"exit code {code}: {errors}"
    assert len(errors) == 1 and len(errors[0]) < 1500, errors
    if out is not None and out.exists():
        left = [path.name for path in out.rglob("*") if path.name != ".lock"]
        assert not left, f"a partial result: {left}"
    return False


def record(source: str, location: Path, out: Path, capsys: pytest.CaptureFixture, options: str = "{}") -> bool:
    """Read a session of `source` into a recording, and convert what was read; True where both succeeded."""
    arguments = ["--session", "x", "--source", source, "--location", str(location), "--options", options]
    made = out / "recording"
    if not ends_well(["record", *arguments, "--out", str(made)], capsys, made, "recording.json"):
        return False
    arguments = ["convert", "--recording", str(made), "--out", str(out / "trains")]
    return ends_well(arguments, capsys, out / "trains", "manifest.json")
