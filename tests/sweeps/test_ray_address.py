"""The address of a cluster: what is one, and what is said of what is none."""

from __future__ import annotations

import re
import time

import pytest

from scaling.errors import InputError
from sweeps.job import Options
from sweeps.ray_executor.address import RayAddress

NO_ADDRESS = {
    "http://127.0.0.1:8265/": "dashboard",
    "https://head:8265": "dashboard",
    "anyscale://x": "not supported",
    "ray-head": "lacks a port",
    "localhost": "lacks a port",
    "ray://head": "lacks a port",
    "head:0": "port",
    "head:99999": "port",
    "head:port": "no address",
    "user@head:6379": "no address",
    ":6379": "no address",
    "a b:6379": "no address",
    "[red]x[/red]:1/": "no address",
}


@pytest.mark.parametrize("text", NO_ADDRESS)
@pytest.mark.parametrize("source", ["RAY_ADDRESS", "`address`"])
def test_what_is_no_address_is_named_with_its_source_at_once(
    text: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", text)
    named = {} if source == "RAY_ADDRESS" else {"address": text}
    with pytest.raises(InputError, match=f"^{re.escape(f'{source} {text}: ')}.*{NO_ADDRESS[text]}.*host:6379"):
        Options(executor="ray", **named)
    if not named:
        assert Options(executor="inline").cluster is None, "inline asks no cluster"


@pytest.mark.parametrize("text", ["", " ", "local"])
def test_no_address_is_an_instance_of_our_own(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", text)
    assert Options(executor="ray").cluster is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert Options(executor="ray").cluster is None


@pytest.mark.parametrize("text", ["auto", "10.0.0.1:6379", "head.lan:6379", "ray://head:10001", "[::1]:6379"])
def test_an_address_of_a_cluster_is_taken(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"{text}\n")
    assert Options(executor="ray").cluster == RayAddress(text, "RAY_ADDRESS")
    assert Options(executor="ray", address="other:1").cluster == RayAddress("other:1", "`address`")


@pytest.mark.parametrize("text", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_a_cluster_that_does_not_answer_is_found_in_seconds(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=re.escape(f"RAY_ADDRESS {text}: no Ray cluster answers")) as raised:
        RayAddress(text, "RAY_ADDRESS").require_answer()
    assert time.monotonic() - began < 6
    assert "unset RAY_ADDRESS" in str(raised.value)
