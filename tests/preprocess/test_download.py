"""preprocess/sources/download.py against a server of our own on this machine."""

import hashlib
import http.server
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fastres.machine.errors import DataError, MachineError, UsageError
from preprocess.sources.download import TINY_IMAGENET, Archive, download

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"PK\x03\x04" + np.random.default_rng(0).bytes(1_000_003)
SIZE = len(CONTENT)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content` as `server.mode` says and notes what was asked and how much was sent."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = 0
        if server.mode == "missing":
            return self.send_error(404)
        if asked and server.mode != "no ranges":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        if server.mode != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.mode == "breaks":
            body = body[:300_000]
        if server.mode == "breaks at once":
            body = b""
        if server.mode == "stalls":
            self.wfile.write(body[:300_000])
            return server.release.wait(60)
        server.sent.append(len(body))
        return self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.mode, server.asked, server.sent = CONTENT, "", [], []
        server.release = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


def archive(server, size=SIZE):
    return Archive(f"http://127.0.0.1:{server.server_port}/tiny.zip", size, MD5)


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("mode", ["", "no ranges", "no length"])
def test_whole(server, tmp_path, mode, capsys):
    server.mode = mode
    assert download(archive(server), tmp_path / "tiny.zip").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["tiny.zip"]
    assert "download tiny.zip: 1,000,007 B in" in capsys.readouterr().err


def test_resumes_a_partial_file(server, tmp_path):
    (tmp_path / "tiny.zip.part").write_bytes(CONTENT[:700_000])
    assert download(archive(server), tmp_path / "tiny.zip").read_bytes() == CONTENT
    assert (server.asked, server.sent) == (["bytes=700000-"], [300_007])
    assert leftovers(tmp_path) == ["tiny.zip"]


def test_starts_over_where_the_server_knows_no_ranges(server, tmp_path):
    server.mode = "no ranges"
    (tmp_path / "tiny.zip.part").write_bytes(CONTENT[:700_000])
    assert download(archive(server), tmp_path / "tiny.zip").read_bytes() == CONTENT
    assert server.sent == [SIZE]


def test_a_complete_partial_file_needs_no_server(tmp_path):
    (tmp_path / "tiny.zip.part").write_bytes(CONTENT)
    nowhere = Archive("http://127.0.0.1:9/tiny.zip", SIZE, MD5)
    assert download(nowhere, tmp_path / "tiny.zip").read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_dropped(server, tmp_path):
    (tmp_path / "tiny.zip.part").write_bytes(CONTENT + b"more")
    assert download(archive(server), tmp_path / "tiny.zip").read_bytes() == CONTENT
    assert server.asked == [None]


def test_goes_on_after_broken_connections(server, tmp_path):
    server.mode = "breaks"
    assert download(archive(server), tmp_path / "tiny.zip", pause=0).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_gives_up_and_keeps_what_came(server, tmp_path):
    server.mode = "breaks at once"
    (tmp_path / "tiny.zip.part").write_bytes(CONTENT[:1000])
    with pytest.raises(MachineError, match=r"failed after 1,000 of 1,000,007 bytes") as caught:
        download(archive(server), tmp_path / "tiny.zip", pause=0)
    assert len(server.asked) == 3
    assert leftovers(tmp_path) == ["tiny.zip.part"]
    for remedy in (archive(server).url, MD5, str(tmp_path / "tiny.zip"), "--small-world"):
        assert remedy in str(caught.value)


def test_404(server, tmp_path):
    server.mode = "missing"
    with pytest.raises(MachineError, match="answered 404"):
        download(archive(server), tmp_path / "tiny.zip", pause=0)
    assert leftovers(tmp_path) == []


def test_no_network(tmp_path):
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        nowhere = Archive(f"http://127.0.0.1:{taken.getsockname()[1]}/tiny.zip", 10, "0" * 32)
        with pytest.raises(MachineError, match=r"refused\), expected a network; fetch .* on any machine"):
            download(nowhere, tmp_path / "tiny.zip", pause=0)
    assert leftovers(tmp_path) == []


def test_damaged_on_its_way(server, tmp_path):
    server.content = CONTENT[:500_000] + b"?" + CONTENT[500_001:]
    with pytest.raises(DataError, match=rf"found md5 {hashlib.md5(server.content).hexdigest()}, expected {MD5}"):
        download(archive(server), tmp_path / "tiny.zip")
    assert leftovers(tmp_path) == []


def test_a_wrong_beginning_is_not_finished_into_a_whole(server, tmp_path):
    (tmp_path / "tiny.zip.part").write_bytes(b"x" * 700_000)
    with pytest.raises(DataError, match="found md5"):
        download(archive(server), tmp_path / "tiny.zip")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("start", [0, 5])
def test_html_instead(server, tmp_path, start):
    server.content, server.mode = b"\n<!DOCTYPE html><p>Log in first</p>", "no ranges"
    (tmp_path / "tiny.zip.part").write_bytes(CONTENT[:start])
    with pytest.raises(DataError, match="found an HTML page, expected a zip: the download failed"):
        download(archive(server), tmp_path / "tiny.zip")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("size", [SIZE + 1, SIZE - 1])
def test_another_size(server, tmp_path, size):
    with pytest.raises(DataError, match=rf"the server offers 1,000,007 bytes, expected {size:,}"):
        download(archive(server, size), tmp_path / "tiny.zip")
    assert leftovers(tmp_path) == []


def test_an_endless_answer_is_cut(server, tmp_path):
    server.mode = "no length"
    with pytest.raises(DataError, match="found md5"):
        download(archive(server, SIZE - 400_000), tmp_path / "tiny.zip")


def test_one_at_a_time(server, tmp_path):
    part = tmp_path / "tiny.zip.part"
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, 2); print(flush=True); time.sleep(9)"
    with subprocess.Popen([sys.executable, "-c", holder, str(part)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UsageError, match="another process is downloading it"):
            download(archive(server), tmp_path / "tiny.zip")
        process.kill()
    assert download(archive(server), tmp_path / "tiny.zip").read_bytes() == CONTENT


def test_full_disk_is_said_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1234, 1234))
    with pytest.raises(MachineError, match=r"found 1,234 bytes free, expected the 1,000,007 needed"):
        download(archive(server), tmp_path / "tiny.zip")
    assert server.asked == []


def test_the_real_archive_is_the_known_one():
    assert TINY_IMAGENET.url.endswith("/tiny-imagenet-200.zip")
    assert (TINY_IMAGENET.bytes, TINY_IMAGENET.md5) == (248_100_043, "90528d7ca1a48142e341f4ef8d21d0de")


def test_a_killed_download_is_resumed(server, tmp_path):
    server.mode = "stalls"
    program = (
        "import sys; from pathlib import Path; from preprocess.sources.download import *;"
        f"download(Archive({archive(server).url!r}, {SIZE}, {MD5!r}), Path(sys.argv[1]))"
    )
    part = tmp_path / "tiny.zip.part"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "tiny.zip")], cwd=ROOT) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        process.kill()
    server.release.set()
    have = part.stat().st_size
    assert 0 < have <= 300_000
    server.mode = ""
    assert download(archive(server), tmp_path / "tiny.zip").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={have}-"]
