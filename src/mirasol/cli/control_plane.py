"""Whether others can reach Prefect's API without credentials: a deployment with a shell step runs on the workers."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Literal
from urllib.parse import urlsplit

Check = tuple[Literal["ok", "note", "missing"], str, str]
"""State, text, remedy."""

PORT = 4200
"""Of `prefect server start`."""
PATIENCE = 5.0
"""Seconds to wait for an answer."""
RECIPE = "docs/operations.md, Server, schedule, workers"
LOCK_UP = "export PREFECT_SERVER_API_AUTH_STRING=user:SECRET && prefect server start"
SHELL = "anyone who reaches it can run code on the workers"


def checks(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Findings about the server of PREFECT_API_URL, and about a server that was started here for others.

    The API is asked for flows without credentials, then with those of the environment.
    """
    url = environment.get("PREFECT_API_URL", "").rstrip("/")
    try:
        ports = {PORT, urlsplit(url).port or PORT, int(environment.get("PREFECT_SERVER_API_PORT", PORT))}
    except ValueError as error:
        text = f"PREFECT_API_URL or PREFECT_SERVER_API_PORT cannot be read: {error}"
        yield "missing", text, "PREFECT_API_URL=https://HOST/api"
        return
    if url and not loopback(urlsplit(url).hostname or ""):
        yield from _remote(url, environment)
    yield from _here(url, ports)


def loopback(host: str) -> bool:
    """Whether all addresses of ``host`` are this machine's alone; a name without an address is not."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def _remote(url: str, environment: Mapping[str, str]) -> Iterator[Check]:
    if urlsplit(url).scheme != "https":
        text = f"{url} is plain http: passwords and logs can be read on the network"
        yield "note", text, f"TLS in front of it: {RECIPE}"
    status, why = flows(url)
    if status == 0:
        yield "missing", f"{url} does not answer: {why}", "start the server, or unset PREFECT_API_URL"
    elif status == 200:
        yield "missing", f"{url} answers without credentials: {SHELL}", f"there: {LOCK_UP}"
    elif status not in (401, 403):
        yield "missing", f"{url} is no Prefect API: status {status} {why}", "PREFECT_API_URL=https://HOST/api"
    elif not (credentials := _credentials(environment)):
        yield "missing", f"{url} asks for credentials, we have none", "export PREFECT_API_AUTH_STRING=user:SECRET"
    elif (status := flows(url, credentials)[0]) != 200:
        yield "missing", f"{url} refuses our credentials: status {status}", "correct PREFECT_API_AUTH_STRING"
    else:
        yield "ok", f"{url} answers with our credentials alone", ""


def _here(url: str, ports: set[int]) -> Iterator[Check]:
    for address, port in sorted(_listening(ports)):
        at = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)
        here = f"http://{at}:{port}/api"
        if here != url and flows(here)[0] == 200:
            text = f"the Prefect server here listens on {address}:{port} and asks for no credentials: {SHELL}"
            yield "missing", text, f"{LOCK_UP}; without --host 0.0.0.0"


def _listening(ports: set[int]) -> set[tuple[str, int]]:
    """Addresses and ports at which other machines may reach a program here, as far as we may know them."""
    import psutil

    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return set()
    open_ports = {tuple(c.laddr) for c in found if c.status == psutil.CONN_LISTEN and c.laddr}
    return {
        (host, port)
        for host, port in open_ports
        if port in ports and not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    }


def _credentials(environment: Mapping[str, str]) -> str:
    """The header that Prefect's client would send; empty without credentials."""
    if text := environment.get("PREFECT_API_AUTH_STRING"):
        return "Basic " + base64.b64encode(text.encode()).decode()
    return f"Bearer {key}" if (key := environment.get("PREFECT_API_KEY")) else ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: a page to sign in at is no answer of the API."""

    def redirect_request(self, *_: object) -> None:
        return None


def flows(url: str, credentials: str = "") -> tuple[int, str]:
    """The status with which an API answers a request for flows, 0 without an answer; and why, unless it lists them."""
    header = {"Content-Type": "application/json"} | ({"Authorization": credentials} if credentials else {})
    try:
        request = urllib.request.Request(f"{url}/flows/filter", data=b'{"limit": 1}', headers=header)
        context = ssl.create_default_context(cafile=os.environ.get("PREFECT_API_SSL_CERT_FILE"))
        handlers: list[urllib.request.BaseHandler] = [_Stay(), urllib.request.HTTPSHandler(context=context)]
        if loopback(urlsplit(url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        with urllib.request.build_opener(*handlers).open(request, timeout=PATIENCE) as answer:
            listed = isinstance(json.loads(answer.read()), list)
            return (200, "") if listed else (404, "(no list of flows)")
    except urllib.error.HTTPError as error:
        return error.code, error.reason
    except (OSError, ValueError, HTTPException) as error:
        return 0, str(getattr(error, "reason", error))
