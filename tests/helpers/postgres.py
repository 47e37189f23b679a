"""A private PostgreSQL server, from Debian's package: its data in a given folder, on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from helpers.ports import free_port


def programs() -> Path | None:
    """The folder of initdb and postgres, or None if they are not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class Server:
    """A running server, open to every user of this machine. url: of its database."""

    def __init__(self, bin: Path, folder: Path) -> None:
        """folder: created for it. PostgreSQL refuses to run as root: then it runs as the package's user `postgres`."""
        user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir()
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "user": user, "cwd": folder}
        options = ["--auth", "trust", "--username", "postgres", "--no-sync"]
        subprocess.run([bin / "initdb", "--pgdata", data, *options], **quiet)  # type: ignore[call-overload]
        port = free_port()
        settings = ("-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F")
        with open(os.devnull, "wb") as nothing:
            self.process = subprocess.Popen(
                [bin / "postgres", "-D", data, *settings], stdout=nothing, stderr=nothing, user=user, cwd=folder
            )
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        end = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    self.stop()
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # a fast shutdown: does not wait for clients
        self.process.wait(30)
