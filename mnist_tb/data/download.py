"""Download a dataset with torchvision, in a child process that can be killed if the network hangs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from mnist_tb.config.redaction import hide_addresses
from mnist_tb.errors import InputError

STALL_SECONDS = 30.0
"""A download that receives nothing for this long is aborted. Socket timeouts do not cover DNS look-ups; this does."""
_SOCKET_SECONDS = 10.0
_BEGUN = "begun"
"""A file that the child process makes once it has imported torchvision: the first time that can take a minute."""

_MIRRORED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
"""The datasets that torchvision downloads from any mirror, and their classes there."""


class DownloadError(Exception):
    """A download failed; the message says why in a few words."""


def fetch(name: str, root: Path, destination: Path, mirror: str | None, seconds: float) -> None:
    """Download a dataset's files and move them to `destination` once all of them match torchvision's checksums.

    A failed download leaves nothing behind.
    root: temporary files are kept below this folder. mirror: a URL to download from instead of torchvision's.
    seconds: the time limit of the whole download; independently, it is aborted after `STALL_SECONDS` without data.
    Raises DownloadError if the download fails, and InputError if a folder cannot be written or there is no mirror.
    """
    if mirror and name not in _MIRRORED:
        raise InputError(f"data.mirror: {name} has no mirrors; of the datasets, {', '.join(_MIRRORED)} have them")
    created: list[Path] = []
    try:
        created = [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    except OSError as error:
        _remove_empty(created)
        raise InputError(f"{root}: the data cannot be downloaded to here: {error.strerror}") from None
    try:
        _run_limited(
            [sys.executable, "-m", "mnist_tb.data.download", name, str(temporary), mirror or ""], temporary, seconds
        )
        destination.mkdir(parents=True, exist_ok=True)
        for file in sorted(temporary.glob("*/raw/**/*")):
            if file.is_file() and file.suffix not in (".gz", ".zip"):
                os.replace(file, destination / file.name)
    except OSError as error:
        raise InputError(f"{destination}: the data cannot be written here: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(created)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, up to the first that is not empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _run_limited(command: list[str], folder: Path, seconds: float) -> None:
    """Run a command that writes to `folder`; kill it after `seconds`, or when the folder, once begun, stops growing.

    Raises DownloadError with what the command printed if it fails.
    """
    progress = None if sys.stderr.isatty() else subprocess.DEVNULL
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=progress, encoding="utf-8", errors="replace"
    )
    start = last_change = time.monotonic()
    size = 0
    try:
        while child.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            previous, size = size, _folder_size(folder)
            if size != previous or not (folder / _BEGUN).exists():
                last_change = now
            if now - start > seconds:
                raise DownloadError(f"not finished within {seconds:.0f} s (data.download_seconds)")
            if now - last_change > STALL_SECONDS:
                raise DownloadError(f"no data received for {STALL_SECONDS:.0f} s")
        if child.returncode != 0:
            output = child.stdout.read().strip() if child.stdout else ""
            raise DownloadError(output or f"the download process failed with exit code {child.returncode}")
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def _folder_size(folder: Path) -> int:
    """Bytes of all files in a folder and its subfolders."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # torchvision has just renamed or removed the file
    return total


def _download(name: str, root: str, mirror: str) -> None:
    """Download a dataset in the child process. URLs, mirrors and checksums are torchvision's."""
    import socket

    from torchvision import datasets

    (Path(root) / _BEGUN).touch()
    socket.setdefaulttimeout(_SOCKET_SECONDS)
    if name in _MIRRORED:
        dataset = getattr(datasets, _MIRRORED[name])
        if mirror:
            dataset.mirrors = [mirror]
        dataset(root, download=True)
    elif name == "qmnist":
        for part in ("train", "test"):
            datasets.QMNIST(root, what=part, download=True)
    else:
        datasets.EMNIST(root, split="digits", download=True)


def main() -> int:
    """Entry point of the child process: dataset, folder and mirror (or "") from the command line."""
    from http.client import InvalidURL

    try:
        _download(*sys.argv[1:4])
    except InvalidURL:  # its message repeats a part of the address, which may be of a proxy's password
        print("the address of the mirror or of the proxy is malformed")
        return 1
    except Exception as error:  # of any kind: the parent process reports it
        print(explain(str(error)) or type(error).__name__)
        return 1
    return 0


def explain(message: str) -> str:
    """torchvision's message in one line: the reason and the machines that were asked; any other as it is.

    It names a file, then each address with an error of urllib below it.
    """
    tried = re.findall(r"^Tried (.+), got:\n(.*)$", message, re.M)
    reasons: dict[str, list[str]] = {}
    for address, error in tried:
        reason = re.sub(r"^<urlopen error (?:\[Errno -?\d+\] )?(.*)>$", r"\1", error.strip())
        reasons.setdefault(reason, []).append(urlsplit(address).netloc)
    if reasons:
        return "; ".join(f"{reason} ({', '.join(dict.fromkeys(hosts))})" for reason, hosts in reasons.items())
    return "; ".join(hide_addresses(line.strip()) for line in message.splitlines() if line.strip())


if __name__ == "__main__":
    sys.exit(main())
