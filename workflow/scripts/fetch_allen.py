# /// script
# requires-python = ">=3.10,<3.12"
# dependencies = ["allensdk==2.16.2", "hdmf>=3.14.5,<5", "setuptools<81"]
# ///
"""A session of Allen Visual Coding Neuropixels, and the tables, through AllenSDK, in an environment of its own.

The exact environment is in fetch_allen.requirements.txt, every file with its hashes; after a change above, make it with

    uv lock --script workflow/scripts/fetch_allen.py
    uv export --script workflow/scripts/fetch_allen.py --no-emit-index-url --no-header --no-annotate \\
        -o workflow/scripts/fetch_allen.requirements.txt && rm workflow/scripts/fetch_allen.py.lock

(the lock itself names the servers of packages, which belong to whoever installs, not to this repository).

It writes into the cache folder exactly what AllenSDK's own EcephysProjectCache expects there. AllenSDK neither verifies
nor gives up: `pipeline_lib.sources.sdk` watches this script, verifies what it wrote, and only then publishes it.
"""

import argparse
import json
from pathlib import Path
from urllib.parse import urlsplit

from allensdk.brain_observatory.ecephys.ecephys_project_cache import EcephysProjectCache


def main() -> None:
    """Fetch the tables and a session, and print how many rows the tables have as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder to write")
    parser.add_argument("--warehouse", required=True, help="address of the RMA warehouse")
    parser.add_argument("--session", type=int, required=True, help="fetch the NWB file of this session and open it")
    options = parser.parse_args()
    address = urlsplit(options.warehouse)
    # Only with both scheme and host does AllenSDK ask another server than its default.
    cache = EcephysProjectCache.from_warehouse(
        scheme=address.scheme, host=address.netloc, manifest=str(options.cache / "manifest.json"), fetch_tries=3
    )
    rows = {
        "sessions": len(cache.get_session_table()),
        "probes": len(cache.get_probes()),
        "channels": len(cache.get_channels()),
        "units": len(cache.get_units()),
    }
    session = cache.get_session_data(options.session)
    if session.ecephys_session_id != options.session:
        raise SystemExit(f"the file of session {options.session} says it is session {session.ecephys_session_id}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
