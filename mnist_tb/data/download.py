"""Fetch a dataset through torchvision, in a process of its own so that nothing it waits for can hang a training."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mnist_tb.errors import InputError

SILENCE_SECONDS = 30.0
"""Without a new byte for this long, a download is given up; name look-ups have no limit of their own."""
_SOCKET_SECONDS = 10.0


class DownloadError(Exception):
    """Why a download did not come about, in a few words."""


def fetch(name: str, root: Path, destination: Path, mirror: str | None, seconds: float) -> None:
    """Download a dataset's files, check them against torchvision's checksums, and move them to `destination`.

    Until all are there and right, nothing is in `destination`; on failure nothing is left behind.
    seconds: the limit for the whole; `SILENCE_SECONDS` is one for standing still.
    Raises DownloadError, and InputError where the folder cannot be written.
    """
    made: list[Path] = []
    try:
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    except OSError as error:
        _remove_empty(made)
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
        raise InputError(f"{destination}: the data cannot be put here: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Take back folders that were made for nothing; one that holds something by now stays."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _run_limited(command: list[str], folder: Path, seconds: float) -> None:
    """Run the child until it ends, stands still or runs out of time. On failure its standard output says why."""
    progress = None if sys.stderr.isatty() else subprocess.DEVNULL
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=progress, text=True)
    start = moved = time.monotonic()
    size = 0
    try:
        while child.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            arrived = _bytes_below(folder)
            moved, size = (now, arrived) if arrived != size else (moved, size)
            if now - start > seconds:
                raise DownloadError(f"not done within {seconds:.0f} s (data.download_seconds)")
            if now - moved > SILENCE_SECONDS:
                raise DownloadError(f"no data for {SILENCE_SECONDS:.0f} s")
        if child.returncode != 0:
            said = child.stdout.read().strip() if child.stdout else ""
            raise DownloadError(said or f"the downloading process ended with exit code {child.returncode}")
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # torchvision has just renamed or removed it
    return total


def _download(name: str, root: str, mirror: str) -> None:
    """What the child does. torchvision knows the addresses, the mirrors and the checksums."""
    import socket

    from torchvision import datasets

    socket.setdefaulttimeout(_SOCKET_SECONDS)
    simple = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
    if name in simple:
        if mirror:
            simple[name].mirrors = [mirror]
        simple[name](root, download=True)
    elif mirror:
        raise ValueError(f"data.mirror works for {', '.join(simple)}, not for {name}")
    elif name == "qmnist":
        for part in ("train", "test"):
            datasets.QMNIST(root, what=part, download=True)
    else:
        datasets.EMNIST(root, split="digits", download=True)


def main() -> int:
    try:
        _download(*sys.argv[1:4])
    except Exception as error:  # whatever it is, the parent says it in one line
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print("; ".join(lines) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
