"""Who sees the page: from this machine by its names, from elsewhere with the token, and nobody else."""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext
from werkzeug.test import Client

from helpers.board import TRAINING, start_board, wait_for_runs, write_status
from helpers.ports import free_port
from mnist_tb.board.access import Access, Guard, access_for, ssh_hint, with_token
from mnist_tb.errors import InputError

TOKEN = "a token / with + odd & characters"


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"the runs"]


def client(token: str | None, *hosts: str) -> Client:
    return Client(Guard(page, Access(token, frozenset({"localhost", *hosts})), 6006))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:6006", "LOCALHOST.", "127.0.0.1:6006", "[::1]:6006", "192.168.1.7", "workstation:6006"],
)
def test_names_and_addresses_of_the_machine(host: str) -> None:
    answer = client(None, "workstation").get("/", headers={"Host": host})
    assert (answer.status_code, answer.data) == (200, b"the runs")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:6006", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "@localhost",
     "localhost\\@evil", "localhost/evil", "workstation.evil"],
)  # fmt: skip
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_name_that_leads_here_from_elsewhere_is_refused(host: str, token: str | None) -> None:
    """DNS rebinding: the browser believes to be on that host, and would give its page the answers."""
    answer = client(token, "workstation").get("/data/runs", headers={"Host": host}, query_string={"token": TOKEN})
    assert answer.status_code == 403
    assert b"the runs" not in answer.data


def test_a_proxy_in_front_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = "https://hub.example.org/user/me/proxy/%PORT%/"
    monkeypatch.setenv("TENSORBOARD_PROXY_URL", proxy)
    assert "hub.example.org" in access_for("localhost", None).hosts
    monkeypatch.setenv("TENSORBOARD_PROXY_URL", "/proxy/%PORT%/")  # of the same host
    assert access_for("localhost", None).hosts == access_for("127.0.0.1", None).hosts - {"127.0.0.1"}


@pytest.mark.parametrize("path", ["/", "/data/runs", "/data/plugin/live/runs", "/data/plugin/scalars/tags"])
def test_without_the_token_nothing_is_shown(path: str) -> None:
    for given in ("", "token=", "token=wrong", f"token={TOKEN[:-1]}", "token=\N{BOMB}", "token=%FF%00", "tokens=x"):
        answer = client(TOKEN).get(path, query_string=given)
        assert answer.status_code == 401
        assert b"the runs" not in answer.data
        assert "Set-Cookie" not in answer.headers
    for header in ("Bearer wrong", "Bearer", f"Basic {TOKEN}", TOKEN):
        assert client(TOKEN).get(path, headers={"Authorization": header}).status_code == 401
    visitor = client(TOKEN)
    visitor.set_cookie("mnist_tb_6006", TOKEN)
    assert visitor.get(path).status_code == 401, "the cookie does not hold the token itself"


def test_the_token_is_given_once_and_leaves_the_address() -> None:
    visitor = client(TOKEN)
    answer = visitor.get("/data/plugin/live/runs", query_string={"token": TOKEN, "since": "3"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/data/plugin/live/runs?since=3")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie
    assert visitor.get("/data/runs").data == b"the runs"
    other = Client(Guard(page, Access("another", frozenset({"localhost"})), 6006))
    other.set_cookie("mnist_tb_6006", re.match("mnist_tb_6006=([^;]+)", cookie)[1])  # type: ignore[index]
    assert other.get("/data/runs").status_code == 401, "a board that starts anew has another token"


def test_programs_give_it_in_a_header() -> None:
    for scheme in ("Bearer", "bearer", "token"):
        assert client(TOKEN).get("/data/runs", headers={"Authorization": f"{scheme} {TOKEN}"}).data == b"the runs"


@pytest.mark.parametrize("path", ["//evil.example/x", "///evil.example", "/\\evil.example"])
def test_the_token_leads_nowhere_else(path: str) -> None:
    answer = client(TOKEN).get("/", query_string={"token": TOKEN}, environ_overrides={"PATH_INFO": path})
    assert re.match(r"/[^/\\]", answer.headers["Location"])


def test_when_a_token_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        access_for("localhost", None).token
        is access_for("127.0.0.1", None).token
        is access_for("::1", None).token
        is None
    )
    made = {access_for(host, None).token for host in ("0.0.0.0", "::", "192.0.2.7")}
    assert len(made) == 3
    assert all(token and len(token) >= 32 for token in made)
    assert access_for("localhost", "mine").token == access_for("0.0.0.0", "mine").token == "mine"
    assert with_token("http://a:1/", Access(TOKEN, frozenset())) == (
        "http://a:1/?token=a+token+%2F+with+%2B+odd+%26+characters"
    )
    for bad in ("", " x", "x\n", "\N{BOMB}"):
        with pytest.raises(InputError, match="--token: must be printable ASCII"):
            access_for("0.0.0.0", bad)


def test_the_command_for_the_other_end_of_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert ssh_hint("localhost", 6006) is None
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.1 50000 192.0.2.7 22")
    assert ssh_hint("localhost", 6007) == "ssh -N -L 6007:localhost:6007 ada@192.0.2.7"
    assert ssh_hint("0.0.0.0", 6007) is None, "it can be reached without"
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.1 50000 192.0.2.7 2222")
    assert ssh_hint("localhost", 6007) == "ssh -N -L 6007:localhost:6007 ada@192.0.2.7 -p 2222"
    for odd in ("", "x", "1 2 3"):
        monkeypatch.setenv("SSH_CONNECTION", odd)
        assert ssh_hint("localhost", 6007) is None


# ---- The command


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that other machines can reach, below a prefix, with its token."""
    logdir = tmp_path_factory.mktemp("open")
    write_status(logdir / "0001-a", TRAINING)
    arguments = ("--logdir", str(logdir), "--port", str(free_port()), "--host", "0.0.0.0", "--path-prefix", "/tb")
    process, address = start_board(*arguments, stderr=subprocess.DEVNULL)
    wait_for_runs(re.sub(r"//[^/:]+(.*)/\?token=(.*)", r"//127.0.0.1\1", address), 1, address.partition("token=")[2])
    yield address
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_page_that_others_can_reach_is_seen_with_the_address_alone(open_to_all: str, context: BrowserContext) -> None:
    local = re.sub(r"//[^/:]+", "//127.0.0.1", open_to_all)
    plain = local.partition("?")[0]
    for path in ("", "data/runs", "data/plugin/live/runs", "data/plugin/live/static/live.js", "index.js"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{plain}{path}", timeout=30)
    tab = context.new_page()
    tab.goto(local)
    tab.frame_locator("iframe").get_by_role("button", name="0001-a").wait_for(timeout=30_000)
    assert "token" not in tab.url, "it does not stay where somebody reads it over a shoulder, or in the history"
    another = context.new_page()
    another.goto(plain)
    another.frame_locator("iframe").get_by_role("button", name="0001-a").wait_for(timeout=30_000)
