"""The real download: a child process, torchvision, HTTP, checksums; only addresses and sums are of test files."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from mnist_tb.config.schema import Data
from mnist_tb.data import datasets as data
from mnist_tb.data import download
from mnist_tb.data.download import DownloadError, fetch
from mnist_tb.errors import InputError

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Mirror:
    """A local HTTP server with the small MNIST, gzipped; `answer` says how a GET is served."""

    def __init__(self, folder: Path) -> None:
        self.files = {f"/{p.name}.gz": gzip.compress(p.read_bytes(), mtime=0) for p in sorted(folder.iterdir())}
        self.answer: Answer = lambda handler, content: handler.wfile.write(content)
        self.status = 200
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                content = mirror.files.get(self.path, b"")
                self.send_response(mirror.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    try:
                        mirror.answer(self, content)
                    except OSError:
                        self.close_connection = True  # the child was ended in the middle of it

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def mirror(small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror, with its files' checksums in the place of the real MNIST's, in the downloading process as well."""
    mirror = Mirror(small_mnist / "MNIST" / "raw")
    sums = [(name[1:], hashlib.md5(content).hexdigest()) for name, content in mirror.files.items()]
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        f"import sys\nif '-m' in sys.orig_argv and 'mnist_tb.data.download' in sys.orig_argv:\n"
        f"    from torchvision.datasets import MNIST\n    MNIST.resources = {sums!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{hooks}{os.pathsep}{REPOSITORY}")
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


def failure(root: Path, url: str, seconds: float = 60) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch("mnist", root, root / "MNIST" / "raw", url, seconds)
    assert not root.exists(), "nothing is left behind"
    return str(caught.value)


def test_download_is_checked_unpacked_and_used(mirror: Mirror, tmp_path: Path, small_mnist: Path) -> None:
    root = tmp_path / "new" / "data"
    dataset = data.load(Data(root=str(root), mirror=mirror.url, fallback=None))
    expected = data.load(Data(root=str(small_mnist), download=False))
    assert torch.equal(dataset.train.images, expected.train.images)
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(
        path.name for path in (small_mnist / "MNIST" / "raw").iterdir()
    )
    assert list(root.iterdir()) == [root / "MNIST"]
    asked = len(mirror.asked)
    data.load(Data(root=str(root), mirror=mirror.url, fallback=None))
    assert len(mirror.asked) == asked, "the second time nothing is downloaded"


def test_wrong_checksum_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    name = "/t10k-labels-idx1-ubyte.gz"
    mirror.files[name] = mirror.files[name][:-1] + b"\x7f"
    assert "corrupted" in failure(tmp_path / "data", mirror.url)


def test_refusing_server_is_reported(mirror: Mirror, tmp_path: Path) -> None:
    mirror.status = 403
    assert "403" in failure(tmp_path / "data", mirror.url)


def test_silent_server_is_given_up(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SILENCE_SECONDS", 4.0)
    mirror.answer = lambda handler, content: time.sleep(60)
    assert "no data for 4 s" in failure(tmp_path / "data", mirror.url)


def test_trickling_server_runs_into_the_limit(mirror: Mirror, tmp_path: Path) -> None:
    def trickle(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        for i in range(len(content)):
            handler.wfile.write(content[i : i + 1])
            handler.wfile.flush()
            time.sleep(0.01)

    mirror.answer = trickle
    assert "not done within 5 s" in failure(tmp_path / "data", mirror.url, seconds=5)


def test_black_hole_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes connections and never answers, as a firewall that drops everything looks to a client."""
    monkeypatch.setattr(download, "SILENCE_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        start = time.monotonic()
        assert failure(tmp_path / "data", f"http://127.0.0.1:{hole.getsockname()[1]}/")
        assert time.monotonic() - start < 60


def test_closed_port_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in failure(tmp_path / "data", f"http://127.0.0.1:{port}/")


def test_unwritable_root_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be downloaded to here: Not a directory"):
        fetch("mnist", tmp_path / "file" / "data", tmp_path, None, 5)


def test_two_failing_downloads_at_once_both_fall_back(mirror: Mirror, tmp_path: Path) -> None:
    mirror.status = 403
    root = tmp_path / "new" / "data"
    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(lambda i: data.load(Data(root=str(root), mirror=mirror.url)), range(2)))
    assert [dataset.name for dataset in loaded] == ["digits", "digits"]


def test_mirror_for_a_dataset_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"data\.mirror works for mnist"):
        fetch("qmnist", tmp_path / "data", tmp_path / "data", "http://127.0.0.1/", 60)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits"])
def test_every_dataset_goes_to_its_torchvision_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    asked: list[tuple[str, dict[str, object]]] = []
    for kind in ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"):
        monkeypatch.setattr(datasets, kind, lambda root, kind=kind, **options: asked.append((kind, options)))
    monkeypatch.setattr(sys, "argv", ["download", name, "root", ""])
    timeout = socket.getdefaulttimeout()
    try:
        assert download.main() == 0
    finally:
        socket.setdefaulttimeout(timeout)
    assert {kind.lower() for kind, _ in asked} == {name.replace("_digits", "").replace("_", "")}
    assert all(options["download"] for _, options in asked)
