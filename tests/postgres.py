"""A PostgreSQL server of our own, from Debian's packages, in a folder, on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psycopg


def programs() -> Path | None:
    """Where initdb and postgres are, or None."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class Server:
    """A running server, which anyone on this machine may use. url: of its database."""

    def __init__(self, bin: Path, folder: Path) -> None:
        """folder: new. It refuses to run as root, and then runs as the user `postgres` of Debian's package."""
        user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir()
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "user": user, "cwd": folder}
        options = ["--auth", "trust", "--username", "postgres", "--no-sync"]
        subprocess.run([bin / "initdb", "--pgdata", data, *options], **quiet)  # type: ignore[call-overload]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = ("-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F")
        with open(os.devnull, "w") as nothing:
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
        self.process.send_signal(signal.SIGINT)  # it does not wait for those who are connected
        self.process.wait(30)
