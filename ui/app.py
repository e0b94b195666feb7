"""The desktop program: one event loop for Qt and the service, and the order of start and stop.

The window is shown before anything of the service is opened. The main coroutine alone
decides when the program ends: a close button or Ctrl+C only asks it to.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import qasync
from PySide6.QtCore import QSettings, QTimer
from PySide6.QtGui import QImageWriter
from PySide6.QtWidgets import QApplication

from ui.bridge import BackboneBridge
from ui.exchange_choice import choose_exchange
from ui.language import LANGUAGES, Language, Translations
from ui.main_window import MainWindow, Replayed
from ui.options import DesktopOptions, Replay
from ui.qt_messages import log_qt_messages
from ui.sentences import error_details, error_sentence, translate, unexpected_sentence
from ui.theme import apply_theme, load_theme
from ui.timeframe_bar import TIMEFRAMES
from upbit_backbone import (
    BackboneConfig,
    BackboneError,
    BackboneManager,
    Timeframe,
    UnknownSymbolError,
)
from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.recorder.records import duration_s
from upbit_backbone.recorder.replay import ReplayServer

logger = logging.getLogger(__name__)

EXIT_NO_CHART = 3
DEFAULT_SYMBOL = "KRW-BTC"
_STOP_WITHIN_S = 5.0
_IMPATIENT_AFTER_S = 1.0
"""A terminal and `uv run` both pass one Ctrl+C on: twice within this is once."""
_PAINT_WITHIN_S = 1.0
_WINDOWS_SIGNAL_MS = 200
_SIMULATOR_COMMAND = "uv run run_desktop_ui.py --exchange simulator"


def run(options: DesktopOptions) -> int:
    """Run the program until it is left; gives its exit code."""
    log_qt_messages()
    app = QApplication(sys.argv[:1])
    app.setApplicationName("Upbit Backbone")
    app.setQuitOnLastWindowClosed(False)
    theme = load_theme()
    apply_theme(app, theme)
    translations = Translations(app)
    watchdog = _Watchdog(_STOP_WITHIN_S)
    try:
        with asyncio.Runner(loop_factory=qasync.QEventLoop) as runner:
            desktop = Desktop(options, translations, watchdog)
            return runner.run(desktop.run())
    finally:
        watchdog.disarm()


class Desktop:
    """The running program: window, bridge and service, from first paint to last close."""

    def __init__(
        self, options: DesktopOptions, translations: Translations, watchdog: _Watchdog
    ) -> None:
        self._options = options
        self._translations = translations
        self._watchdog = watchdog
        self._replay = _replay_server(options.replay)
        # A replay's clock is the recording's: what the window counts from now counts from there.
        self._clock: Clock = SystemClock() if self._replay is None else self._replay.clock
        self._settings = _settings(options)
        translations.use(self._language())
        self._exit_code = 0
        self._asked_at = 0.0
        self._chart_drawn = False
        self._manager: BackboneManager | None = None

    async def run(self) -> int:
        """Show the window, open the service, wait for the end, close everything."""
        self._stop = asyncio.Event()
        self._painted = asyncio.Event()
        self._bridge = BackboneBridge()
        self._window = MainWindow(self._bridge, load_theme(), self._clock)
        if self._settings is not None:
            self._window.restore_state(self._settings)
        self._window.closeWanted.connect(self._ask_to_stop)
        self._window.painted.connect(self._note_paint)
        self._window.chartDrawn.connect(self._note_chart)
        self._window.languageWanted.connect(self._speak)
        self._window.symbolUnknown.connect(self._replace_unknown)
        with _signals(self._ask_to_stop), self._failures_shown():
            self._window.open_chart(*self._first_chart())
            self._window.show()
            if self._settings is not None:
                self._window.keep_state(self._settings)
            tasks = [asyncio.create_task(self._open(), name="open the service")]
            if self._options.screenshot is not None:
                shot = self._take_screenshot(self._options.screenshot)
                tasks.append(asyncio.create_task(shot, name="screenshot"))
            await self._stop.wait()
            await self._close(tasks)
        return self._exit_code

    # Start

    async def _open(self) -> None:
        try:
            await self._wait_for_paint()
            if self._options.automatic:
                text = translate("Desktop", "Trying to reach Upbit…")
                self._window.notices.show_message(text)
            config = await self._start_replay()
            choice = await choose_exchange(config, automatic=self._options.automatic)
            if self._replay is None:
                self._window.notices.hide()
                self._window.set_simulated(choice.config.exchange == "simulator")
            if choice.reason == "stored":
                text = translate(
                    "Desktop",
                    "Upbit cannot be reached: this is what was stored before. For a simulated"
                    " market start: {0}",
                ).format(_SIMULATOR_COMMAND)
                self._window.notices.show_message(text)
            elif choice.reason == "simulator":
                text = translate(
                    "Desktop", "Upbit cannot be reached: a simulator was started instead."
                )
                self._window.notices.show_message(text)
            self._manager = BackboneManager(
                choice.config, clock=self._clock, first_symbol=self._window.symbol
            )
            await self._manager.initialize()
            self._bridge.attach(self._manager.api)
        except BackboneError as exc:
            logger.error("the service could not be opened: %s", exc)
            self._window.messages.show_message(error_sentence(exc), error_details(exc))
        except Exception as exc:
            # A fault of ours: a window that stays empty without a word helps nobody.
            logger.exception("the service could not be opened")
            text = translate(
                "Desktop", "The service did not start because of an unexpected error; try again."
            )
            self._window.messages.show_message(text, repr(exc))

    async def _start_replay(self) -> BackboneConfig:
        """Serve the recording, if there is one; gives the settings that reach it."""
        config, server, replay_of = self._options.config, self._replay, self._options.replay
        if server is None or replay_of is None:
            return config
        recording = replay_of.recording
        simulated = recording.header.mark is not None
        # Before it is started the clock stands where the recording begins.
        began_ms = server.clock.now_ms()
        self._window.set_replay(Replayed(began_ms, replay_of.speed, simulated))
        if not recording.complete:
            text = translate("Desktop", "The recording's end is missing: it has {0} seconds.")
            self._window.notices.show_message(text.format(f"{duration_s(recording):.0f}"))
        await server.start()
        return replace(config, rest_url=server.rest_url, ws_url=server.ws_url, replay=server.name)

    async def _wait_for_paint(self) -> None:
        """The window comes first. A window nobody shows (minimised) is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAINT_WITHIN_S):
                await self._painted.wait()

    def _first_chart(self) -> tuple[str, Timeframe]:
        options = self._options
        stored = {timeframe.value: timeframe for timeframe in TIMEFRAMES}
        last = stored.get(self._remembered("timeframe"), Timeframe.M1)
        return options.symbol or self._last_symbol(), options.timeframe or last

    def _last_symbol(self) -> str:
        return self._remembered("symbol") or DEFAULT_SYMBOL

    def _language(self) -> Language:
        last = self._remembered("language")
        known = next((language for language in LANGUAGES if language == last), LANGUAGES[0])
        return self._options.language or known

    def _remembered(self, key: str) -> str:
        """What is known from the last time; empty if nothing is."""
        return "" if self._settings is None else str(self._settings.value(key) or "")

    def _note_paint(self) -> None:
        logger.info("window shown")
        self._painted.set()

    def _note_chart(self) -> None:
        if not self._chart_drawn:
            self._chart_drawn = True
            logger.info("chart drawn")
            # What was made to start stays; the collector need not walk through it again.
            gc.collect()
            gc.freeze()

    def _speak(self, language: str) -> None:
        if language in LANGUAGES:
            self._translations.use(language)
            if self._settings is not None:
                self._settings.setValue("language", language)

    def _replace_unknown(self, error: UnknownSymbolError) -> None:
        """Open the last market that was there; a screenshot of another one helps nobody."""
        if self._options.screenshot is not None:
            if not self._stop.is_set():
                logger.error("%s", error)
                self._exit_code = EXIT_NO_CHART
                self._ask_to_stop()
            return
        listed = self._window.markets
        wanted = (self._last_symbol(), DEFAULT_SYMBOL, *listed)
        instead = next((symbol for symbol in wanted if symbol in listed), None)
        if instead is None:
            return  # nothing is listed: the message stands
        self._window.open_chart(instead, self._window.timeframe)
        shown = translate("Desktop", "{0} is shown instead.").format(instead)
        self._window.messages.show_message(f"{error_sentence(error)} {shown}")

    async def _take_screenshot(self, file: Path) -> None:
        await self._wait_for_paint()
        await asyncio.sleep(self._options.after_s)
        drawn = self._chart_drawn
        writer = QImageWriter(str(file))
        saved = writer.write(self._window.grab().toImage())
        if not saved:
            reason = writer.errorString()
            logger.error("the screenshot could not be written to %s: %s", file, reason)
        if not drawn:
            logger.error("no chart was drawn within %g s", self._options.after_s)
        self._exit_code = 0 if saved and drawn else EXIT_NO_CHART
        self._ask_to_stop()

    # Stop

    def _ask_to_stop(self) -> None:
        """Begin to end; asked once more while that takes long, end at once."""
        if not self._stop.is_set():
            self._asked_at = self._clock.monotonic()
            self._watchdog.arm()
            self._stop.set()
        elif self._clock.monotonic() - self._asked_at > _IMPATIENT_AFTER_S:
            self._watchdog.bite("asked to close again while closing")

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        self._window.begin_closing()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._bridge.close()
        if self._manager is not None:
            await self._manager.shutdown()
        if self._replay is not None:
            await self._replay.close()
        self._window.setEnabled(True)
        if self._settings is not None:
            self._window.save_state(self._settings)
            self._settings.sync()
        self._window.let_close()
        self._window.deleteLater()
        self._bridge.deleteLater()

    # Failures

    @contextmanager
    def _failures_shown(self) -> Iterator[None]:
        """What nobody caught is logged and shown; the program goes on."""
        loop = asyncio.get_running_loop()
        before = sys.excepthook

        def on_exception(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> None:
            logger.error("unexpected error", exc_info=(kind, error, trace))
            self._window.messages.show_message(unexpected_sentence(), error_details(error))

        def in_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            logger.error("unexpected error: %s", context["message"], exc_info=error)
            if error is not None:
                self._window.messages.show_message(unexpected_sentence(), error_details(error))

        sys.excepthook = on_exception
        loop.set_exception_handler(in_loop)
        try:
            yield
        finally:
            sys.excepthook = before
            loop.set_exception_handler(None)


def _settings(options: DesktopOptions) -> QSettings | None:
    """State of the window only; everything else is given by flags and environment.

    A screenshot neither knows nor changes it: the same command gives the same picture.
    """
    if options.screenshot is not None:
        return None
    path = options.config.data_dir / "window.ini"
    return QSettings(str(path), QSettings.Format.IniFormat)


def _replay_server(replay: Replay | None) -> ReplayServer | None:
    return None if replay is None else ReplayServer(replay.recording, speed=replay.speed)


class _Watchdog:
    """Ends the process when closing takes too long: a hanging window helps nobody."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._timer: threading.Timer | None = None

    def arm(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(
                self._after_s, self.bite, [f"closing took more than {self._after_s:g} s"]
            )
            self._timer.daemon = True
            self._timer.start()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def bite(self, why: str) -> None:
        logger.critical("ending at once: %s", why)
        logging.shutdown()
        os._exit(1)


@contextmanager
def _signals(stop: Any) -> Iterator[None]:
    """Let Ctrl+C and a termination request call `stop` in the loop; then they do as before."""
    loop = asyncio.get_running_loop()
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in wanted]
    try:
        for number in wanted:
            loop.add_signal_handler(number, stop)
    except NotImplementedError:
        # Windows: Python runs signal handlers between its own instructions only, and an idle
        # Qt loop executes none; so a timer that does nothing lets it.
        for number in wanted:
            signal.signal(number, lambda *_: stop())
        awake = QTimer(interval=_WINDOWS_SIGNAL_MS)
        awake.timeout.connect(lambda: None)
        awake.start()
        try:
            yield
        finally:
            awake.stop()
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)
        return
    try:
        yield
    finally:
        for number, handler in zip(wanted, before, strict=True):
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
