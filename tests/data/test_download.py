"""The real download: child process, torchvision, HTTP and checksums; only the URLs and the sums are of test files."""

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

from helpers.paths import REPOSITORY
from mnist_tb.config.schema import Data
from mnist_tb.data import download
from mnist_tb.data.datasets import load_dataset
from mnist_tb.data.download import DownloadError, fetch
from mnist_tb.errors import InputError

pytestmark = pytest.mark.slow

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Mirror:
    """A local HTTP server with a small MNIST, gzipped; `answer` writes the response to a GET."""

    def __init__(self, folder: Path) -> None:
        self.files = {f"/{p.name}.gz": gzip.compress(p.read_bytes(), mtime=0) for p in sorted(folder.iterdir())}
        self.answer: Answer = lambda handler, content: handler.wfile.write(content)
        self.status = 200
        self.requests: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append(self.path)
                content = mirror.files.get(self.path, b"")
                self.send_response(mirror.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    try:
                        mirror.answer(self, content)
                    except OSError:
                        self.close_connection = True  # the download process was killed meanwhile

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def mirror(small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror; the download process expects the checksums of its files instead of the real MNIST's."""
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


def failure(root: Path, url: str, seconds: float = 300) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch("mnist", root, root / "MNIST" / "raw", url, seconds)
    assert not root.exists(), "a failed download leaves nothing behind"
    return str(caught.value)


def test_download_is_verified_unpacked_and_loaded(mirror: Mirror, tmp_path: Path, small_mnist: Path) -> None:
    root = tmp_path / "new" / "data"
    dataset = load_dataset(Data(root=str(root), mirror=mirror.url, fallback=None))
    expected = load_dataset(Data(root=str(small_mnist), download=False))
    assert torch.equal(dataset.train.images, expected.train.images)
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(
        path.name for path in (small_mnist / "MNIST" / "raw").iterdir()
    )
    assert list(root.iterdir()) == [root / "MNIST"]
    requests = len(mirror.requests)
    load_dataset(Data(root=str(root), mirror=mirror.url, fallback=None))
    assert len(mirror.requests) == requests, "the second load downloads nothing"


def test_wrong_checksum_is_rejected(mirror: Mirror, tmp_path: Path) -> None:
    name = "/t10k-labels-idx1-ubyte.gz"
    mirror.files[name] = mirror.files[name][:-1] + b"\x7f"
    assert "corrupted" in failure(tmp_path / "data", mirror.url)


def test_http_error_is_reported(mirror: Mirror, tmp_path: Path) -> None:
    mirror.status = 403
    assert "403" in failure(tmp_path / "data", mirror.url)


def test_stalled_download_is_aborted(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 4.0)
    mirror.answer = lambda handler, content: time.sleep(60)
    assert "no data received for 4 s" in failure(tmp_path / "data", mirror.url)


def test_a_slow_start_is_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is new or busy the import of torchvision alone takes longer than a network may be silent."""
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)
    download._run_limited([sys.executable, "-c", "import time; time.sleep(2)"], tmp_path, seconds=300)


def test_slow_download_hits_the_time_limit(mirror: Mirror, tmp_path: Path) -> None:
    def trickle(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        for i in range(len(content)):
            handler.wfile.write(content[i : i + 1])
            handler.wfile.flush()
            time.sleep(0.01)

    mirror.answer = trickle
    assert "not finished within 5 s" in failure(tmp_path / "data", mirror.url, seconds=5)


def test_unanswered_connection_is_aborted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that accepts connections and never answers, like a firewall that drops all packets."""
    monkeypatch.setattr(download, "STALL_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert failure(tmp_path / "data", f"http://127.0.0.1:{server.getsockname()[1]}/")


def test_closed_port_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in failure(tmp_path / "data", f"http://127.0.0.1:{port}/")


def test_the_reason_is_one_sentence() -> None:
    """As torchvision words it: a file, then each mirror with its error."""
    addresses = ("https://a.example/mnist/", "http://b.example/mnist/", "http://c.example/mnist/")
    errors = ("<urlopen error [Errno -2] Name or service not known>",) * 2 + ("HTTP Error 404: Not Found",)
    tried = "".join(f"Tried {place}, got:\n{error}\n" for place, error in zip(addresses, errors, strict=True))
    assert download.explain(f"Error downloading train-images-idx3-ubyte.gz:\n{tried}") == (
        "Name or service not known (a.example, b.example); HTTP Error 404: Not Found (c.example)"
    )
    assert download.explain("File not found or\n corrupted.\n") == "File not found or; corrupted."


def test_unwritable_root_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be downloaded to here: Not a directory"):
        fetch("mnist", tmp_path / "file" / "data", tmp_path, None, 5)


def test_two_concurrent_failing_downloads_both_fall_back(mirror: Mirror, tmp_path: Path) -> None:
    mirror.status = 403
    root = tmp_path / "new" / "data"
    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(lambda i: load_dataset(Data(root=str(root), mirror=mirror.url)), range(2)))
    assert [dataset.name for dataset in loaded] == ["digits", "digits"]


@pytest.mark.parametrize("name", ["qmnist", "emnist_digits"])
def test_mirror_is_rejected_for_a_dataset_that_has_none(name: str, tmp_path: Path) -> None:
    """It is no failure of the network, after which digits are trained on."""
    sentence = rf"^data\.mirror: {name} has no mirrors; of the datasets, mnist, fashion_mnist, kmnist have them$"
    with pytest.raises(InputError, match=sentence):
        load_dataset(Data(name=name, root=str(tmp_path / "data"), mirror="http://127.0.0.1/", fallback="digits"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits"])
def test_every_dataset_is_downloaded_by_its_torchvision_class(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    calls: list[tuple[str, dict[str, object]]] = []
    for kind in ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"):
        monkeypatch.setattr(datasets, kind, lambda root, kind=kind, **options: calls.append((kind, options)))
    monkeypatch.setattr(sys, "argv", ["download", name, str(tmp_path), ""])
    timeout = socket.getdefaulttimeout()
    try:
        assert download.main() == 0
    finally:
        socket.setdefaulttimeout(timeout)
    assert {kind.lower() for kind, _ in calls} == {name.replace("_digits", "").replace("_", "")}
    assert all(options["download"] for _, options in calls)
