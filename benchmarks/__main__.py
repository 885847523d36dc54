"""Every benchmark, one after the other: `make bench`, or `python -m benchmarks [NAME ...]`.

Each prints a table of ratios to the floor of the machine and to its peers; `python benchmarks/NAME.py --help` says how
to give it an interpreter that has the peers installed.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main(names: list[str]) -> int:
    scripts = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    unknown = set(names) - {path.stem for path in scripts}
    if unknown:
        print(f"error: no benchmark {unknown.pop()}; there are {', '.join(path.stem for path in scripts)}")
        return 2
    failed = 0
    for script in scripts:
        if not names or script.stem in names:
            print(f"\n== {script.stem}\n", flush=True)
            failed += bool(subprocess.run([sys.executable, script], check=False).returncode)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
