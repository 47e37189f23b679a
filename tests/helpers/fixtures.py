"""The types of fixtures, and what to do where one cannot be had."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import pytest
from playwright.sync_api import Page

from mnist_tb.runs.folder import Run


def missing(message: str) -> NoReturn:
    """What a test needs is not here: CI fails, and a person skips."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


Here = Callable[..., tuple[int, str, str]]


Train = Callable[..., Run]


Open = Callable[[str], Page]
