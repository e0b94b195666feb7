"""Flags of all commands that open a service."""

from __future__ import annotations

import typer

EXCHANGE = typer.Option("--exchange", help="upbit (default), or simulator.")
REST_URL = typer.Option("--rest-url", help="Another REST address, ending in /v1.")
WS_URL = typer.Option("--ws-url", help="And its WebSocket; both or neither.")
