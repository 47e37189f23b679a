"""No planted secret is found again: in what hides secrets, in a run's files, on the terminal, in an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.config.redaction import (
    hide_address,
    hide_addresses,
    hide_command,
    hide_settings,
    hide_variable,
)
from mnist_tb.data.download import explain

MARK = "Gehäim"
_PARTS = st.text("abcXYZ019@:/?#&=-+%~ äöü", max_size=8)
secrets = st.builds("{}Gehäim{}".format, _PARTS, _PARTS)
"""Of any of the characters that end a part of an address; their middle is not to be found either."""
users = secrets.map(lambda text: text.replace(":", "").lstrip("/"))
"""Before the colon of an address without a scheme."""
schemes = st.sampled_from(["https", "http", "ssh", "git+ssh", "postgresql", "socks5", "json"])

PLAIN = (
    "https://github.com/me/x.git",
    "git@github.com:me/x.git",
    "ssh://host/x.git",
    "/path/with@sign",
    "/path/with@sign:/another@path",
    "sqlite:///a.db",
    "postgresql://localhost:5432/db",
    "http://proxy.example:8080",
    "C:\\data",
    "train.lr=0.1",
    "me@example.org",
    "a: b, c (1:2): d?",
    "",
)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_plain_stays(text: str) -> None:
    assert hide_address(text) == hide_addresses(text) == hide_variable("OMP_X", text) == text
    assert hide_command(["python", "x.py", text, "--lr", "0.1"]) == ["python", "x.py", text, "--lr", "0.1"]
    assert hide_settings({"name": text, "deep": {"er": [text]}}) == {"name": text, "deep": {"er": [text]}}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://TOKEN@host/x.git", "https://(hidden)@host/x.git"),
        ("https://TOKEN:x-oauth-basic@host", "https://(hidden)@host"),
        ("u:p@ss@host:8080", "(hidden)@host:8080"),
        ("https://host/a?sig=x&b=c#d", "https://host/a?(hidden)"),
        ("https://host/#access_token=x", "https://host/#(hidden)"),
        ("https://u:p@host/a?b=c@d", "https://(hidden)"),
    ],
)
def test_what_is_left_of_an_address(text: str, hidden: str) -> None:
    assert hide_address(text) == hidden
    assert hide_addresses(f"Tried {text} in vain") == f"Tried {hidden} in vain"


@given(schemes, secrets, secrets)
def test_addresses(scheme: str, secret: str, other: str) -> None:
    planted = (
        f"{scheme}://{secret}@host/path",
        f"{scheme}://{secret}:{other}@host:80",
        f"{scheme}://me:{secret}@host/x@y",
        f"{scheme}://{secret}:x-oauth-basic@host",
        f"{scheme}://host/path?password={secret}",
        f"{scheme}://me@host/path?a=b&sig={secret}#{other}",
        f"{scheme}://host/path#access_token={secret}",
    )
    for text in planted:
        assert MARK not in hide_address(text), text
        assert MARK not in hide_variable("OMP_X", text), text
        for word in (text, f"--set=data.mirror={text}", f"ALL_PROXY={text}"):
            assert MARK not in " ".join(hide_command(["python", word, "--lr", "1"])), word
        if "@" in text:
            assert MARK not in json.dumps(hide_settings({"a": text, "b": [{"c": text}]}), ensure_ascii=False), text
        if " " not in text:  # else nobody knows where it begins and ends in a sentence
            assert MARK not in hide_addresses(f"Tried {text}: in vain"), text
            assert MARK not in explain(f"no\n{text} in vain"), text


@given(users, secrets.filter(lambda text: not text.startswith("//")))
def test_addresses_without_a_scheme(user: str, secret: str) -> None:
    for text in (f"me:{secret}@host:80", f"{user}:{secret}@host"):
        assert MARK not in hide_address(text), text
        assert MARK not in hide_variable("OMP_X", text), text
        assert MARK not in " ".join(hide_command(["curl", "-x", text])), text


@given(
    secrets, st.sampled_from(["password", "API_KEY", "hf-token", "PassPhrase", "Authorization", "cookies", "notify"])
)
def test_options_and_variables(secret: str, name: str) -> None:
    planted = (
        [f"--{name}", secret],
        [f"-{name}", secret],
        [f"--{name}={secret}"],
        [f"-D{name}={secret}"],
        [f"{name}={secret}"],
        ["-H", f"{name}: Bearer {secret}"],
        ["-H", f"{name}:", "Bearer", secret],
        [json.dumps({"a": 1, name: secret}, ensure_ascii=False)],
        ["sh", "-c", f"train --{name} {secret}"],
        [f"https://{secret}:{name}=x@host"],
    )
    for words in planted:
        shown = hide_command(["python", *words, "--lr", "0.1"])
        assert MARK not in " ".join(shown), words
        assert "0.1" in shown
    assert hide_variable(f"MNIST_TB_{name}", secret) == "(hidden)"
    assert MARK not in hide_variable("OMP_X", f"--{name} {secret}")


@given(secrets)
def test_settings(secret: str) -> None:
    names = ("password", "db_passwd", "apiKey", "api_key", "aws.secret-access-key", "hf_token", "token", "credentials")
    shown = hide_settings(dict.fromkeys(names, secret) | {"deep": {"secret": {"x": [secret]}}})
    assert MARK not in json.dumps(shown, ensure_ascii=False)
    kept = {
        "pad_token": "<pad>",
        "max_tokens": 5,
        "key": "a",
        "tokenizer": "b",
        "password": 3,
        "monkey": "c",
        "token": None,
    }
    assert hide_settings(kept) == kept


@given(secrets)
def test_a_configuration_that_is_refused(secret: str) -> None:
    from mnist_tb.config.load import load_config
    from mnist_tb.errors import InputError

    for place in ("data.mirror", "data.password", "device"):
        for address in (f"https://me:{secret}@host/", f"https://host/?sig={secret}/"):
            with pytest.raises(InputError) as caught:
                load_config("digits", [f"{place}={json.dumps(address, ensure_ascii=False)}"])
            assert MARK not in str(caught.value)


def test_a_word_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["sweep", "sweeps/lr", "postgresql://me:geheim@host/db"]) == 2
    error = capsys.readouterr().err
    assert "postgresql://(hidden)@host/db" in error
    assert "geheim" not in error


PROGRAM = """
from mnist_tb import Tracker
with Tracker("runs", "mine") as tracker:
    tracker.scalars(1, {"loss/train": 1.0})
"""


def test_a_run(tmp_path: Path) -> None:
    """Of a program in a repository whose remote has a token: in no file, and not on the terminal."""
    (tmp_path / "train.py").write_text(PROGRAM)
    for command in (["init", "-q"], ["remote", "add", "origin", "https://geheim-0@example.org/x.git"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    words = [
        "--password",
        "-geheim",
        "--url=https://geheim:x@h",
        "me:ge/geheim@h:80",
        "http://h/?sig=geheim",
        "--lr",
        "0.1",
    ]
    planted = {
        "HTTPS_PROXY": "me:geheim@proxy:8080",
        "MNIST_TB_TOKEN": "geheim",
        "MNIST_TB_INDEX": "https://geheim@example.org/x?y",
        "TORCH_OPTIONS": "--api-key -geheim",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "train.py", *words]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **planted}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    kept = json.loads(next(path for path in files if path.name == "environment.json").read_text())
    assert kept["code"]["remote"] == "https://(hidden)@example.org/x.git"
    assert kept["command"].endswith("--lr 0.1")
    assert kept["variables"].keys() >= {"MNIST_TB_TOKEN", "MNIST_TB_INDEX", "TORCH_OPTIONS"}
    for content in (done.stdout, done.stderr, *(path.read_bytes() for path in files)):
        assert b"geheim" not in content
