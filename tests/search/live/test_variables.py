"""Addresses and messages of services: filled in from the environment, and shown without what lets anybody in."""

from __future__ import annotations

import pytest

from raymae.search.live.variables import SECRETS, redacted


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_of_the_environment_is_in_no_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "s3cr3t-key")
    assert redacted("401: the key s3cr3t-key is not known") == "401: the key … is not known"


@pytest.mark.parametrize(("message", "shown"), [
    ("no route to https://ann:pw@host:5000/runs", "no route to https://…@host:5000/runs"),
    ("GET https://host/hook?token=abc&x=1 failed", "GET https://host/hook?… failed"),
    ("('http://host/a?key=1')", "('http://host/a?…')"),
    ("what is it? nothing", "what is it? nothing"),
])
def test_nor_is_what_an_address_holds(message: str, shown: str) -> None:
    assert redacted(message) == shown
