"""Runs before anything of the tests: without Qt's libraries nothing here can start."""

from __future__ import annotations

from ui.preflight import run_preflight

# SystemExit and not pytest.exit, which would end with 4 and a traceback. Tests never need
# a window; whoever wants to watch them sets QT_QPA_PLATFORM=xcb.
run_preflight(want_window=False)

pytest_plugins = ["tests.loops", "tests.guards"]
