"""Who may see the page: on this machine whoever asks for it by its name, from elsewhere who has the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from werkzeug import Request, Response

from mnist_tb.errors import InputError

Application = Callable[..., Iterable[bytes]]
_LOCAL = frozenset({"localhost", "localhost.localdomain"})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::\d+)?")  # an IPv6 address, or another one or a name
_YEAR_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class Access:
    """token: that is asked for; None for none. hosts: the names in an address that the page answers to, lower case."""

    token: str | None
    hosts: frozenset[str]


def access_for(host: str, token: str | None) -> Access:
    """Who may see a page that is served on `host`. Beyond this machine a token is made, where none is chosen.

    A proxy in front of it, as a notebook's on another machine, names itself in TENSORBOARD_PROXY_URL.

    Raises InputError where the token cannot stand in an address.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise InputError("--token: must be printable ASCII, and not empty")
    beyond = not _is_loopback(host)
    names = {socket.gethostname(), socket.getfqdn(), host} if beyond else {host}
    names.add(urlsplit(os.environ.get("TENSORBOARD_PROXY_URL", "")).hostname or host)
    return Access(
        secrets.token_urlsafe(24) if beyond and token is None else token,
        _LOCAL | {name.lower().rstrip(".") for name in names},
    )


def with_token(address: str, access: Access) -> str:
    """The address with which a browser gets in."""
    return address if access.token is None else f"{address}?{urlencode({'token': access.token})}"


def ssh_hint(host: str, port: int) -> str | None:
    """Where this is an SSH session, the command that makes the page appear on the other machine; else None."""
    server = os.environ.get("SSH_CONNECTION", "").split()
    if len(server) != 4 or not _is_loopback(host):
        return None
    where = f"{os.environ.get('USER') or 'you'}@{server[2]}"
    return f"ssh -N -L {port}:localhost:{port} {where}" + (f" -p {server[3]}" if server[3] != "22" else "")


class Guard:
    """A WSGI application that lets in whom an `Access` says, to all addresses of another one.

    An address that names another host is refused: a page elsewhere may have had its name resolved to this machine (DNS
    rebinding), and would read the answers. The token comes in the address, once; then the browser has a cookie.
    """

    def __init__(self, application: Application, access: Access, port: int) -> None:
        self._application = application
        self._access = access
        self._cookie = f"mnist_tb_{port}"  # cookies are the same for all ports of a host

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answer(Request(environ))
        return (self._application if answer is None else answer)(environ, start_response)

    def _answer(self, request: Request) -> Response | None:
        """What is said instead of the page; None to let in."""
        if not self._is_known_host(request.headers.get("Host", "")):
            return _refusal(
                403,
                "This page answers to the names of its machine alone, not to the one in this address. Behind a proxy,"
                " set TENSORBOARD_PROXY_URL to the proxy's address, and start it again.",
            )
        if self._access.token is None or self._has_proof(request):
            return None
        if not _is_same(request.args.get("token", ""), self._access.token):
            return _refusal(401, "This page needs a token: open the address that mnist-tb board has printed.")
        rest = [(key, value) for key, value in request.args.items(multi=True) if key != "token"]
        path = quote("/" + (request.root_path + request.path).lstrip("/"))  # with two slashes it would be another host
        answer = Response(status=303, headers={"Location": path + (f"?{urlencode(rest)}" if rest else "")})
        answer.set_cookie(
            self._cookie, _digest(self._access.token), max_age=_YEAR_SECONDS, httponly=True, samesite="Lax"
        )
        return answer

    def _is_known_host(self, host: str) -> bool:
        name = _HOST.fullmatch(host.lower())
        return name is not None and (name[2] in self._access.hosts or _is_address(name[1] or name[2]))

    def _has_proof(self, request: Request) -> bool:
        token = self._access.token or ""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        by_header = scheme.lower() in ("bearer", "token") and _is_same(given.strip(), token)
        return by_header or _is_same(request.cookies.get(self._cookie, ""), _digest(token))


def _refusal(code: int, sentence: str) -> Response:
    return Response(f"{sentence}\n", status=code, content_type="text/plain; charset=utf-8")


def _digest(token: str) -> str:
    return hashlib.sha256(f"mnist_tb {token}".encode()).hexdigest()


def _is_same(one: str, other: str) -> bool:
    """In a time that says nothing of where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
