"""A download ends in the right bytes or in one clear error, whatever the server does."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import download
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.transport import DownloadError, Network
from tests.servers.files import Fault, FileServer

QUICK = Network(connect=1.0, stall=0.4, attempts=4, backoff=0.01, longest_wait=0.05)
CONTENT = np.random.default_rng(0).bytes(3_500_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]


@pytest.fixture
def server(server: FileServer) -> FileServer:
    server.put("/file.bin", CONTENT)
    return server


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    return Downloader(tmp_path / "ledger.tsv", QUICK)


def _remote(server: FileServer, tmp_path: Path, **more: object) -> RemoteFile:
    known = {"size": len(CONTENT), "digests": {"md5": MD5}} | more
    return RemoteFile(server.url + "/file.bin", tmp_path / "cache/file.bin", **known)


def _is_whole(path: Path) -> bool:
    return path.read_bytes() == CONTENT and [entry.name for entry in path.parent.iterdir()] == [path.name]


ONCE = {
    "nothing": [],
    "503 twice": [Fault(status=503), Fault(status=503, headers={"Retry-After": "0"})],
    "429 with a date": [Fault(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})],
    "cut half-way": [Fault(cut_at=2_000_000)],
    "cut before the first byte": [Fault(cut_at=0)],
    "cut again and again, further each time": [Fault(cut_at=500_000)] * 3,
    "stalled half-way": [Fault(stall_at=2_000_000)],
    "stalled before the first byte": [Fault(stall_at=0)],
    "a trickle": [Fault(trickle=0.02)],
    "other bytes of the right length": [Fault(wrong=True)],
    "a login page instead of the file": [Fault(page=True)],
}


@pytest.mark.parametrize("case", ONCE)
@pytest.mark.parametrize("published", [True, False])
def test_a_fault_that_passes_ends_in_the_right_bytes(
    server: FileServer, downloader: Downloader, tmp_path: Path, case: str, published: bool
) -> None:
    if not published and case == "a login page instead of the file":
        pytest.skip("nobody can tell without a checksum, a size or a format; see the tests below")
    server.fail("/file.bin", *ONCE[case])
    remote = _remote(server, tmp_path) if published else _remote(server, tmp_path, size=None, digests={})
    began = time.monotonic()
    fetched = downloader.fetch(remote)
    assert time.monotonic() - began < 4
    assert _is_whole(remote.path)
    assert (fetched.sha256, fetched.size) == (SHA256, len(CONTENT))
    assert len(server.asked("/file.bin")) == len(ONCE[case]) + 1


FOR_EVER = {
    "503": (Fault(status=503), "HTTP status 503, 4 times in a row"),
    "not found": (Fault(status=404), "check the id"),
    "forbidden": (Fault(status=403), "ALYX_TOKEN"),
    "cut": (Fault(cut_at=0), "cut after 0"),
    "stalled": (Fault(stall_at=10), r"no byte for 0\.4 s"),
    "trickle": (Fault(trickle=0.1), r"found only [1-9]\d* bytes in [01] s, 4 times in a row"),
    "other bytes": (Fault(wrong=True), "the same bytes each time"),
    "a login page": (Fault(page=True), "42 bytes where 3500000 are published"),
}


@pytest.mark.parametrize("case", FOR_EVER)
def test_a_fault_that_stays_ends_in_one_clear_line(
    server: FileServer, downloader: Downloader, tmp_path: Path, case: str
) -> None:
    fault, text = FOR_EVER[case]
    server.fail("/file.bin", *[fault] * 50)
    remote = _remote(server, tmp_path)
    began = time.monotonic()
    with pytest.raises(DownloadError) as error:
        downloader.fetch(remote)
    assert time.monotonic() - began < 5
    assert re.search(text, str(error.value))
    assert "\n" not in str(error.value)
    assert not remote.path.exists()


def test_nobody_listening(tmp_path: Path, downloader: Downloader) -> None:
    with pytest.raises(DownloadError, match="no connection"):
        downloader.fetch(RemoteFile("http://127.0.0.1:9/file", tmp_path / "file"))


def test_resume_moves_only_the_rest(server: FileServer, downloader: Downloader, tmp_path: Path) -> None:
    server.fail("/file.bin", Fault(cut_at=2_000_000))
    fetched = downloader.fetch(_remote(server, tmp_path))
    first, second = server.asked("/file.bin")
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=2000000-"
    assert second.headers["If-Range"].strip('"') == MD5
    assert server.sent == fetched.moved == len(CONTENT)


@pytest.mark.parametrize("lacking", ["nothing", "ranges", "conditions"])
def test_a_file_that_changed_in_between_is_fetched_from_the_start(
    server: FileServer, downloader: Downloader, tmp_path: Path, lacking: str
) -> None:
    """Without a published checksum: half of the old file and half of the new one must never be joined."""
    remote = _remote(server, tmp_path, size=None, digests={})
    server.tag = '"first"'  # says nothing about the bytes
    server.fail("/file.bin", *[Fault(cut_at=2_000_000)] + [Fault(status=503)] * 4)
    with pytest.raises(DownloadError):
        downloader.fetch(remote)
    assert (tmp_path / "cache/.file.bin.part").stat().st_size == 2_000_000
    if lacking != "nothing":
        setattr(server, lacking, False)
    server.put("/file.bin", OTHER)
    server.tag = '"second"'
    downloader.fetch(remote)
    assert remote.path.read_bytes() == OTHER


def test_a_server_without_tags_is_never_resumed_blindly(
    server: FileServer, downloader: Downloader, tmp_path: Path
) -> None:
    server.tags = False
    server.fail("/file.bin", Fault(cut_at=2_000_000))
    remote = _remote(server, tmp_path, size=None, digests={})
    downloader.fetch(remote)
    assert _is_whole(remote.path)
    assert all("Range" not in request.headers for request in server.requests)


def test_a_server_that_cannot_resume_and_always_cuts_is_given_up(
    server: FileServer, downloader: Downloader, tmp_path: Path
) -> None:
    server.ranges = False
    server.fail("/file.bin", *[Fault(cut_at=2_000_000)] * 50)
    with pytest.raises(DownloadError, match="cut after 2000000"):
        downloader.fetch(_remote(server, tmp_path))
    assert len(server.requests) <= 2 * QUICK.attempts


def test_a_body_without_length(server: FileServer, downloader: Downloader, tmp_path: Path) -> None:
    server.lengths = False
    remote = _remote(server, tmp_path)
    server.fail("/file.bin", Fault(cut_at=1_000_000))
    assert downloader.fetch(remote).sha256 == SHA256
    assert _is_whole(remote.path)


def test_what_is_verified_is_not_fetched_again(server: FileServer, downloader: Downloader, tmp_path: Path) -> None:
    for remote in (_remote(server, tmp_path), _remote(server, tmp_path, size=None, digests={})):
        downloader.fetch(remote)
        asked = len(server.requests)
        assert downloader.fetch(remote).moved == 0
        assert len(server.requests) == asked


def test_bit_rot_of_a_file_that_is_here_is_found_and_mended(
    server: FileServer, downloader: Downloader, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for remote in (_remote(server, tmp_path), _remote(server, tmp_path, size=None, digests={})):
        downloader.fetch(remote)
        rotten = bytearray(CONTENT)
        rotten[1_234_567] ^= 1
        remote.path.write_bytes(rotten)
        downloader.fetch(remote)
        assert _is_whole(remote.path)
        assert "fetching it again" in capsys.readouterr().err


def test_the_ledger_binds_a_later_fetch(server: FileServer, downloader: Downloader, tmp_path: Path) -> None:
    """Nothing is published: the first fetch is recorded, and the same address must give the same bytes for ever."""
    remote = _remote(server, tmp_path, size=None, digests={})
    server.tags = False
    assert downloader.fetch(remote).checked == "nothing published"
    assert downloader.fetch(remote).checked == "ledger"
    assert (tmp_path / "ledger.tsv").read_text() == f"{SHA256}\t{len(CONTENT)}\t{remote.url}\n"
    remote.path.unlink()
    server.put("/file.bin", OTHER)
    with pytest.raises(DownloadError, match="the first fetch gave"):
        downloader.fetch(remote)
    assert not remote.path.exists()


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_remote_one(
    server: FileServer, downloader: Downloader, tmp_path: Path
) -> None:
    remote = _remote(server, tmp_path, size=None, digests={})
    remote.path.parent.mkdir()
    remote.path.write_bytes(CONTENT)
    assert downloader.fetch(remote).checked == "S3 ETag"
    assert server.sent == 1
    assert downloader.ledger.lookup(remote.url) == SHA256


def test_a_stale_published_checksum_has_a_named_and_logged_way_out(
    server: FileServer, downloader: Downloader, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    remote = _remote(server, tmp_path, digests={"md5": "0" * 32})
    with pytest.raises(DownloadError, match=f"--accept {SHA256}"):
        downloader.fetch(remote)
    assert len(server.requests) == QUICK.downloads
    accepting = Downloader(tmp_path / "ledger.tsv", QUICK, accept=[SHA256])
    fetched = accepting.fetch(remote)
    assert fetched.checked.startswith("accepted although md5")
    assert "accepted although md5" in capsys.readouterr().err
    assert _is_whole(remote.path)


@pytest.mark.parametrize("suffix", [".nwb", ".npy", ".pqt"])
def test_a_login_page_is_not_taken_for_data_where_nothing_is_published(
    server: FileServer, downloader: Downloader, tmp_path: Path, suffix: str
) -> None:
    url = server.put("/data" + suffix, b"<html>Please log in</html>")
    with pytest.raises(DownloadError, match="does not open as " + suffix):
        downloader.fetch(RemoteFile(url, tmp_path / ("data" + suffix)))


def test_a_multipart_etag_confirms_a_file(tmp_path: Path) -> None:
    from pipeline_lib.sources.digests import matches_etag

    content = np.random.default_rng(1).bytes(17 << 20)
    (tmp_path / "file").write_bytes(content)
    parts = [hashlib.md5(content[at : at + (8 << 20)]).digest() for at in range(0, len(content), 8 << 20)]
    etag = f'"{hashlib.md5(b"".join(parts)).hexdigest()}-{len(parts)}"'
    assert matches_etag(tmp_path / "file", etag)
    (tmp_path / "file").write_bytes(content[:-1] + b"\0")
    assert not matches_etag(tmp_path / "file", etag)


def test_an_etag_that_means_something_else_costs_a_second_download(
    server: FileServer, downloader: Downloader, tmp_path: Path
) -> None:
    server.tag = '"00000000000000000000000000000000"'
    fetched = downloader.fetch(_remote(server, tmp_path, size=None, digests={}))
    assert (fetched.checked, fetched.moved) == ("two downloads alike", 2 * len(CONTENT))
    assert downloader.fetch(fetched.file).moved == 0


def test_no_room_is_said_before_a_byte_is_written(
    server: FileServer, downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPARE", 1 << 60)
    with pytest.raises(DownloadError, match=r"no room: 3\.5 MB needed"):
        downloader.fetch(_remote(server, tmp_path))
    assert (tmp_path / "cache/.file.bin.part").stat().st_size == 0


PROGRAM = """
    import resource, sys
    from pathlib import Path
    from pipeline_lib.errors import InputError
    from pipeline_lib.sources.download import Downloader, RemoteFile
    from pipeline_lib.sources.transport import Network

    url, folder, size, md5, limit = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    network = Network(connect=2, stall=5, attempts=4, backoff=0.01)
    remote = RemoteFile(url, Path(folder) / "cache/file.bin", int(size), {"md5": md5} if md5 else {})
    try:
        print(Downloader(Path(folder) / "ledger.tsv", network).fetch(remote).moved)
    except InputError as error:
        sys.exit(f"error: {error}")
"""


def _start(server: FileServer, tmp_path: Path, limit: int = 0, md5: str = MD5) -> subprocess.Popen:
    program = textwrap.dedent(PROGRAM)
    arguments = [server.url + "/file.bin", str(tmp_path), str(len(CONTENT)), md5, str(limit)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("md5", [MD5, ""], ids=["md5 published", "nothing published"])
def test_sigkill_half_way_then_the_rest_only(server: FileServer, tmp_path: Path, md5: str) -> None:
    server.slow = 0.01
    process = _start(server, tmp_path, md5=md5)
    part = tmp_path / "cache/.file.bin.part"
    until = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 1_000_000):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "cache/file.bin").exists()
    here = part.stat().st_size
    assert 1_000_000 < here < len(CONTENT)
    server.slow = 0.0
    fetched = Downloader(tmp_path / "ledger.tsv", QUICK).fetch(
        _remote(server, tmp_path, digests={"md5": md5} if md5 else {})
    )
    assert fetched.moved == len(CONTENT) - here
    assert _is_whole(tmp_path / "cache/file.bin")


def test_six_processes_on_one_cache_fetch_once(server: FileServer, tmp_path: Path) -> None:
    server.slow = 0.002
    processes = [_start(server, tmp_path) for _ in range(6)]
    moved = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert sorted(moved) == [0] * 5 + [len(CONTENT)]
    assert len(server.requests) == 1
    assert _is_whole(tmp_path / "cache/file.bin")


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(server: FileServer, tmp_path: Path) -> None:
    process = _start(server, tmp_path, limit=2_000_000)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert "is full" in errors and "free space" in errors
    assert not (tmp_path / "cache/file.bin").exists()
    process = _start(server, tmp_path)
    assert int(process.communicate(timeout=30)[0]) == len(CONTENT) - 2_000_000
    assert _is_whole(tmp_path / "cache/file.bin")


def test_several_files_at_a_time_and_one_that_fails(server: FileServer, downloader: Downloader, tmp_path: Path) -> None:
    contents = {f"/{k}.bin": np.random.default_rng(k).bytes(50_000 + k) for k in range(12)}
    files = [RemoteFile(server.put(path, content), tmp_path / path[1:]) for path, content in contents.items()]
    fetched = downloader.fetch_all(files)
    assert [item.file for item in fetched] == files
    assert all((tmp_path / path[1:]).read_bytes() == content for path, content in contents.items())
    missing = RemoteFile(server.url + "/none.bin", tmp_path / "none.bin")
    with pytest.raises(DownloadError, match=r"none\.bin"):
        downloader.fetch_all([*files, missing])
    assert downloader.fetch_all(files)[0].moved == 0


def test_no_password_or_signature_in_a_message(tmp_path: Path, downloader: Downloader, server: FileServer) -> None:
    url = server.url.replace("//", "//me:secret@") + "/none?signature=hidden&versionId=7"
    with pytest.raises(DownloadError) as error:
        downloader.fetch(RemoteFile(url, tmp_path / "none", headers={"Authorization": "Token topsecret"}))
    assert not any(secret in str(error.value) for secret in ("secret@", "hidden", "topsecret"))
    assert "versionId=7" in str(error.value)


def test_at_least_one_file_is_fetched_at_a_time() -> None:
    with pytest.raises(InputError, match="parallel"):
        Network(parallel=0)
