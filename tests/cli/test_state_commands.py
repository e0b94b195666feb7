"""``status``, ``doctor``, ``config`` and the JSON of ``db``: what a person asks when it matters."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import NOWHERE, run, run_json
from upbit_backbone.clock import ShiftedClock, SystemClock, utc_datetime
from upbit_backbone.commands.doctor import EXIT_CODES, read_qt_answer
from upbit_backbone.commands.settings import SENTENCES, file_text
from upbit_backbone.config import SETTINGS, BackboneConfig, settle
from upbit_backbone.protocol import LayerStatus, PerformanceMetrics, SystemHealth, SystemStatus
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.surroundings import Surroundings
from upbit_backbone.telemetry.endpoint import MetricsServer


def addresses(simulator: Simulator) -> tuple[str, ...]:
    return ("--rest-url", simulator.rest_url, "--ws-url", simulator.ws_url)


# status


def test_status_opens_a_service_for_a_moment_and_says_so(tmp_path: Path) -> None:
    told = run(tmp_path, "status")
    assert told.exit_code == 0
    for word in ("simulator-1", "모의 SIMULATED", "1 routing:", "4 api:", "healthy"):
        assert word in told.stdout
    assert "opened for a moment" in told.stderr
    found = run_json(tmp_path, "status")
    assert (found["running"], found["health"]) == (False, "healthy")
    assert list(found["layers"]) == ["layer_1", "layer_2", "layer_3", "layer_4"]


async def test_status_asks_the_service_that_runs(tmp_path: Path) -> None:
    now = utc_datetime(SystemClock().now_ms())
    layers = {f"layer_{n}": LayerStatus(f"layer_{n}", "healthy", "", now) for n in (1, 2, 3, 4)}
    status = SystemStatus(SystemHealth("healthy", layers), "upbit", False, "live", "", 12.0, 0)
    server = MetricsServer(0, metrics=_no_figures, status=lambda: status)
    await server.start()
    try:
        variable = {"UPBIT_BACKBONE_METRICS_PORT": server.url.rpartition(":")[2]}
        told = await asyncio.to_thread(
            run_json, tmp_path, "status", exchange=NOWHERE, environment=variable
        )
    finally:
        await server.stop()
    assert (told["running"], told["identity"], told["load"]) == (True, "upbit", 12.0)
    assert not list(tmp_path.iterdir()), "nothing was opened"


def _no_figures() -> PerformanceMetrics:
    raise AssertionError("status asks for no figures")


def test_status_offline_is_a_failure(tmp_path: Path) -> None:
    told = run(tmp_path, "status", exchange=NOWHERE)
    assert told.exit_code == 1
    assert "offline" in told.stdout


# doctor


async def _doctor(folder: Path, simulator: Simulator) -> tuple[int, dict[str, Any]]:
    told = await asyncio.to_thread(run, folder, "doctor", "--json", exchange=addresses(simulator))
    found = json.loads(told.stdout)
    return told.exit_code, {check["name"]: check for check in found["checks"]}


async def test_the_doctor_finds_nothing_wrong_where_nothing_is(tmp_path: Path) -> None:
    async with Simulator() as simulator:
        code, checks = await _doctor(tmp_path, simulator)
    assert (code, list(checks)) == (0, list(EXIT_CODES))
    assert {check["state"] for check in checks.values()} <= {"ok", "warning"}


async def test_each_illness_has_its_exit_code_and_a_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Simulator(clock=ShiftedClock(SystemClock().now_ms() + 60_000)) as simulator:
        code, checks = await _doctor(tmp_path / "slow", simulator)
        assert code == 11
        assert re.search("(59|60) s slow", checks["clock"]["sentence"])
        assert checks["clock"]["remedy"]
    async with Simulator() as simulator:
        block = tmp_path / "blocked" / simulator_folder(simulator) / "block.json"
        block.parent.mkdir(parents=True)
        until_ms = SystemClock().now_ms() + 100_000
        block.write_text(json.dumps({"blocked_until_ms": until_ms}))
        code, checks = await _doctor(tmp_path / "blocked", simulator)
        assert (code, checks["network"]["state"]) == (12, "unknown")
        assert "wait until it is over" in checks["limits"]["remedy"]
        (tmp_path / "file").write_text("")
        code, checks = await _doctor(tmp_path / "file", simulator)
        assert (code, checks["network"]["state"]) == (13, "ok")
        assert "--data-dir" in checks["disk"]["remedy"]


def simulator_folder(simulator: Simulator) -> str:
    return BackboneConfig(rest_url=simulator.rest_url, ws_url=simulator.ws_url).identity


def test_the_doctor_says_what_to_do_when_nothing_is_reached(tmp_path: Path) -> None:
    told = run(tmp_path, "doctor", exchange=NOWHERE)
    assert told.exit_code == 10
    assert "✘ network" in told.stdout
    assert "→ check the connection" in told.stdout
    assert "? clock" in told.stdout


def test_what_qt_lacks_and_a_missing_font_are_two_illnesses() -> None:
    answer = {"problems": [["no libGL", "apt-get install libgl1", True]], "version": ""}
    qt, fonts = read_qt_answer(json.dumps(answer).encode(), b"")
    assert (qt.state, qt.remedy, fonts.state) == ("failed", "apt-get install libgl1", "ok")
    answer = {
        "problems": [["No Korean font", "apt-get install fonts-nanum", False]],
        "version": "6",
    }
    qt, fonts = read_qt_answer(json.dumps(answer).encode(), b"")
    assert (qt.state, fonts.state) == ("ok", "failed")
    qt, fonts = read_qt_answer(b"", b"Traceback\nImportError: libEGL.so.1")
    assert qt.state == "failed"
    assert "libEGL.so.1" in qt.sentence
    assert fonts.state == "unknown"


# config


def test_config_tells_each_setting_and_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("memory_limit_mb = 99\n")
    variable = {"UPBIT_BACKBONE_SIMULATOR_SEED": "5"}
    asked = ("config", "--config", str(file))
    found = run_json(tmp_path, *asked, environment=variable)
    told = found["settings"]
    assert list(told) == list(SETTINGS)
    assert told["memory_limit_mb"] == {"value": 99, "from": f"line 1 of {file}"}
    assert told["simulator_seed"] == {"value": 5, "from": "UPBIT_BACKBONE_SIMULATOR_SEED"}
    assert told["exchange"] == {"value": "simulator", "from": "--exchange"}
    assert told["critical_reserve"] == {"value": 2, "from": "default"}
    assert (found["file"], found["measured"]) == (str(file), None)
    table = run(tmp_path, *asked, environment=variable).stdout
    assert all(name in table for name in SETTINGS)


def test_config_auto_tells_what_was_measured(tmp_path: Path) -> None:
    found = run_json(tmp_path, "config", "--auto")
    assert found["measured"]["processors"] >= 1
    assert found["settings"]["max_concurrent_requests"]["from"].startswith("measured: ")
    assert "network: " in run(tmp_path, "config", "--auto").stdout


def test_a_variable_that_is_no_setting_is_told(tmp_path: Path) -> None:
    told = run(tmp_path, "config", environment={"UPBIT_BACKBONE_MEMORY_LIMT_MB": "5"})
    assert told.exit_code == 0
    assert "UPBIT_BACKBONE_MEMORY_LIMT_MB is not used" in told.stderr
    assert "did you mean memory_limit_mb?" in told.stderr


def test_a_new_settings_file_changes_nothing_until_a_comment_is_taken_away(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.toml"
    assert run(tmp_path, "config", "init", str(file), exchange=()).exit_code == 0
    assert BackboneConfig.from_file(file, environment={}) == BackboneConfig()
    for name in SETTINGS:
        text = file.read_text(encoding="utf-8")
        assert SENTENCES[name] in text
        line = next(line for line in text.splitlines() if line.startswith(f"# {name} = "))
        alone = tmp_path / "alone.toml"
        pair = ("rest_url", "ws_url")
        needed = [one for one in text.splitlines()
                  if name in (*pair, "replay") and one.startswith(("# rest_url =", "# ws_url ="))
                  and one != line]  # fmt: skip
        alone.write_text("\n".join(one.removeprefix("# ") for one in (line, *needed)))
        BackboneConfig.from_file(alone, environment={})


def test_a_settings_file_that_is_there_stays_unless_force_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("simulator_seed = 3\n")
    told = run(tmp_path, "config", "init", str(file), exchange=())
    assert told.exit_code == 2
    assert "--force replaces it" in told.stderr
    assert file.read_text() == "simulator_seed = 3\n"
    assert run(tmp_path, "config", "init", str(file), "--force", exchange=()).exit_code == 0
    assert "simulator_seed = 1" in file.read_text()


def test_a_file_with_what_suits_the_machine_gives_what_auto_gives(tmp_path: Path) -> None:
    small = Surroundings(2, 2_000, 1_500, 4_000, 0, ("eth0",), 5)
    settled = settle({}, surroundings=small, detect=True)
    file = tmp_path / "auto.toml"
    file.write_text(file_text(settled))
    assert BackboneConfig.from_file(file, environment={}) == settled.config
    assert "# measured: 2 processors" in file.read_text()


def test_a_damaged_settings_file_ends_any_command_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('exchange = "simulator"\nmemory_limit_mb = \n')
    for asked in (("status",), ("config",), ("candles", "KRW-BTC", "1m"), ("db", "stats")):
        told = run(tmp_path, *asked, "--config", str(file), exchange=())
        assert (told.exit_code, told.stdout) == (2, "")
        assert f"line 2 of {file} is not understood" in told.stderr
        assert len(told.stderr.splitlines()) == 1


def test_a_settings_file_reaches_the_commands(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('exchange = "simulator"\nsimulator_seed = 4\ndata_dir = "beside"\n')
    by_flag = run(tmp_path, "ticker", "KRW-BTC", "--config", str(file), "--data-dir",
                  str(tmp_path / "beside"), exchange=())  # fmt: skip
    assert by_flag.exit_code == 0
    assert (tmp_path / "beside" / "simulator-4").is_dir()


# db, and the whole


def test_what_the_store_holds_is_told_as_json(tmp_path: Path) -> None:
    assert run(tmp_path, "candles", "KRW-XRP", "1h", "--count", "5", "--to",
               "2025-09-02T00:00Z").exit_code == 0  # fmt: skip
    stats = run_json(tmp_path, "db", "stats")
    assert (stats["rows"], stats["series"], stats["damaged"]) == (5, 1, False)
    check = run_json(tmp_path, "db", "check")
    assert (check["whole"], check["problems"]) == (True, [])


def test_help_tells_the_exit_codes_and_every_command() -> None:
    told = run(Path(os.devnull), "--help", exchange=())
    for word in ("Exit codes", "130 Ctrl+C", "ticker", "doctor", "config", "watch", "--json"):
        assert word in told.stdout
    assert run(Path(os.devnull), "--version", exchange=()).stdout.startswith("upbit-backbone ")
