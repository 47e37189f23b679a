"""Hides secrets in what is kept, printed or raised: in addresses, command lines, variables and settings.

Where an address cannot be told from the password in it, too much is hidden rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "(hidden)"
_NAME = r"(?:key|token|secret|passw|pwd|passphrase|credential|auth|cookie|bearer|notify)"
_SWITCH = rf"(?<![\w-])-[^=:\s]*{_NAME}[^=:\s]*"
_OPTION = re.compile(rf"{_SWITCH}|.*{_NAME}[^=:]*[=:]\s*|bearer|basic|token", re.IGNORECASE | re.DOTALL)
"""A word whose value is the next one: `--password`, or `Authorization:`."""
_NAMED = re.compile(rf"(?:{_NAME}[^=:]*[=:]\s*|{_SWITCH}\s+)(?=.)", re.IGNORECASE | re.DOTALL)
"""What a value follows in the same word: `API_KEY=x`, `{"password": "x"}`."""
_SCHEME = re.compile(r"[^:@]*://")
_QUERY = re.compile(rf"((?:://|{re.escape(HIDDEN)}@)[^?#]*[?#]).+", re.DOTALL)
_ADDRESS = re.compile(r"\S*:\S(?:.*@\S*|\S*)")
"""What may be one in a sentence; only the last @ of its line is known to be outside a password."""
_SETTING = re.compile(
    r"passw|passphrase|_pwd_|secret|credential|_auth_|authorization|cookie|(api|access|private|encryption|hub|openai)_?keys?_"
    r"|(?<!_pad)(?<!_bos)(?<!_eos)(?<!_unk)(?<!_sep)(?<!_cls)(?<!_mask)(?<!_special)_tokens?_$|[a-z0-9]token_$"
)
"""In the name of a setting, whose words have underscores around them; other keys and tokens are hyperparameters."""
_VALUE = re.compile(
    rf"(?:passw|pwd|secret|token|authorization|bearer)\w*[\s\"']*[=:]\s*\S|{_SWITCH}\s+\S|://|\S:\S+@", re.I
)
"""What in a text is not without a secret, perhaps."""


def hide_address(text: str) -> str:
    """One address: `https://(hidden)@host/path?(hidden)`; the user is hidden too, since it may be a token.

    What has no password stays as it is, such as `git@host:path`, and so does a list of paths, `/a:/b@c`.
    """
    user, at, place = text.rpartition("@")
    if ":" in user and ("://" in user or not user.startswith("/")):
        scheme = _SCHEME.match(user)
        start = scheme[0] if scheme else ""
        is_clear = not re.search("[?#]", user[len(start) :])  # else the last @ may be in a query
        text = start + HIDDEN + (at + place if is_clear else "")
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def hide_addresses(sentence: str) -> str:
    """A message that may repeat addresses."""
    return _ADDRESS.sub(lambda found: hide_address(found[0]), sentence)


def hide_text(text: str) -> str:
    """An address, or what follows the name of a secret: `password=(hidden)`."""
    named = _NAMED.search(text)
    if named is None:
        return hide_address(text)
    name, value = text[: named.end()], text[named.end() :]
    cut = "@" if "@" in value else ""  # the name may be within a password
    return hide_address(name + cut).removesuffix(HIDDEN) + HIDDEN


def hide_command(words: Iterable[str]) -> list[str]:
    """A command line; the value of an option whose name looks like a secret's is hidden, whatever it begins with."""
    hidden, is_value = [], False
    for word in words:
        hidden.append(HIDDEN if is_value else hide_text(word))
        is_value = _OPTION.fullmatch(word) is not None
    return hidden


def hide_variable(name: str, value: str) -> str:
    """The value of an environment variable."""
    return HIDDEN if re.search(_NAME, name, re.IGNORECASE) else hide_text(value)


def hide_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training; strings are hidden whose names are a secret's by whole words, not `pad_token`."""
    return {name: _hide_setting(value, _is_secret(name)) for name, value in settings.items()}


def _is_secret(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+", "_", str(name)).lower()
    return _SETTING.search(f"_{words}_") is not None


def _hide_setting(value: Any, is_secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {name: _hide_setting(each, is_secret or _is_secret(name)) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        if not is_secret and all(isinstance(each, str) for each in value):
            return hide_command(value) if any(_VALUE.search(each) or each[:1] == "-" for each in value) else list(value)
        return [_hide_setting(each, is_secret) for each in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if is_secret else hide_text(value) if _VALUE.search(value) else value
