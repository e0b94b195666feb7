"""Record an exchange: the bytes of its REST answers and of its stream, as they come."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from typing import NamedTuple, NoReturn
from uuid import UUID

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, hdrs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from yarl import URL

from upbit_backbone.clock import MINUTE_MS, Clock, ExchangeClock, Moment, epoch_ms
from upbit_backbone.errors import (
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.origin import MARK_HEADER, Origin
from upbit_backbone.recorder.questions import (
    MARKET_LIST,
    OPENING_PAGES,
    PAGE_CANDLES,
    candle_page,
    chart_series,
    minutely,
    opening_lists,
)
from upbit_backbone.recorder.records import (
    AnyRecord,
    Ended,
    Header,
    RestAnswer,
    RestFailure,
    StreamBreak,
    StreamForm,
    StreamFrame,
    StreamOpened,
    StreamRequest,
)
from upbit_backbone.recorder.subscriptions import KINDS
from upbit_backbone.recorder.wire_file import WireFileWriter, refuse_to_replace

logger = logging.getLogger(__name__)

SPACING_S = 0.15
"""Between two questions: 6.7 a second of all groups together, where each allows ten."""
ROUND_AFTER_MINUTE_MS = 2_000
"""A round begins so long after a minute of the exchange: the closed candles have settled
(a last trade is stored up to a second late; upbit-api, section 3)."""
FLUSH_EVERY_S = 1.0
STABLE_S = 10.0
"""A connection that lasted so long was a good one: the back-off begins anew."""

TOO_FAST_S = 1.0
"""How long a 429 is obeyed: the second's allowance is back."""

_TIMEOUT = ClientTimeout(total=10.0, sock_connect=3.0)
_MOST_BACKOFF_S = 30.0
_LOOK_EVERY_S = 0.1
_PING_S = 20.0
_MOST_DOUBLINGS = 10
_CLOSE_TIMEOUT_S = 0.3
_MOST_FRAME_BYTES = 16 << 20
_BLOCKED_S = 60.0
_LONGEST_BLOCK_S = 86_400.0
MOST_BODY_BYTES = 16 << 20
"""A larger answer is none of an exchange's (all order books have 2.3 MB), and not held."""
_SYMBOL = re.compile(r"[A-Z0-9]{2,10}-[A-Z0-9]{1,20}")
_FORMS: tuple[StreamForm, ...] = ("DEFAULT", "SIMPLE")


class _Market(msgspec.Struct):
    market: str


class _Candle(msgspec.Struct):
    candle_date_time_utc: str


_markets = msgspec.json.Decoder(list[_Market])
_candles = msgspec.json.Decoder(list[_Candle])


class Wanted(NamedTuple):
    """What is to be recorded; from `read_wanted`."""

    symbols: tuple[str, ...]
    types: tuple[str, ...]
    form: StreamForm
    seconds: float | None
    """Counted from the first subscription; None: until it is ended."""


class Source(NamedTuple):
    """Where an exchange answers."""

    rest_url: str
    ws_url: str
    origin: Origin


class Tally(NamedTuple):
    """What a recording holds."""

    seconds: float
    """From the first subscription to the end."""
    answers: int
    frames: int
    breaks: int
    size_bytes: int


def read_wanted(symbols: str, types: str, form: str, seconds: float | None) -> Wanted:
    """Understand what a person asks for.

    Raises:
        InvalidRequestError: the message says what is expected.
    """
    codes = _split("symbols", symbols.upper())
    for code in codes:
        if not _SYMBOL.fullmatch(code):
            raise InvalidRequestError(
                f"symbols must be markets such as 'KRW-BTC,KRW-XRP' (quote first), was {code!r}"
            )
    kinds = _split("types", types.lower())
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidRequestError(f"types must be some of {', '.join(KINDS)}, was {kind!r}")
    chosen = next((name for name in _FORMS if name == form.upper()), None)
    if chosen is None:
        raise InvalidRequestError(f"format must be DEFAULT or SIMPLE, was {form!r}")
    if seconds is not None and not seconds > 0:
        raise InvalidRequestError(f"seconds must be more than 0, was {seconds:g}")
    return Wanted(codes, kinds, chosen, seconds)


class Recorder:
    """Records one exchange to one file.

    First the market list, tickers, books, trades and pages of candles, then the stream, and
    each minute what changes of the former. What is refused or lost is recorded as such and
    tried again. Holds at most one chunk (`wire_file`).
    """

    def __init__(
        self,
        source: Source,
        wanted: Wanted,
        path: Path,
        *,
        clock: Clock,
        rng: Random,
        overwrite: bool = False,
        spacing_s: float = SPACING_S,
        on_begin: Callable[[], None] | None = None,
    ) -> None:
        """Store what is given; nothing is opened.

        Args:
            source: Where to record.
            wanted: What to record.
            path: The file to make.
            clock: This machine's time.
            rng: Jitter of reconnects.
            overwrite: Replace a file that is there.
            spacing_s: Least time between two questions.
            on_begin: Called when the stream was subscribed for the first time.
        """
        self._source = source
        self._wanted = wanted
        self._path = path
        self._clock = clock
        self._rng = rng
        self._overwrite = overwrite
        self._spacing_s = spacing_s
        self._on_begin = on_begin
        self._exchange_clock = ExchangeClock(clock)
        self._zero_s = clock.monotonic()
        self._next_question_s = self._zero_s
        self._writer: WireFileWriter | None = None
        self._begun_us: int | None = None
        self._blocked_until_s = self._zero_s
        self._opened = asyncio.Event()
        self._answers = self._frames = self._breaks = 0

    async def run(self, stopped: asyncio.Event) -> Tally:
        """Record until `stopped` is set, or the wanted time is over.

        Stopped before the first answer, it makes no file.

        Raises:
            InvalidRequestError: the file is there already; a market is not listed.
            TransportError: the exchange was not reached at the start.
            RateLimitedError: it refused the first question as too fast.
            ProtocolError: it answered something that is no market list.
            StorageOriginError: an answer carried another mark than the first one, or a mark
                where none may be.
            StorageUnavailableError: the file cannot be written.
        """
        refuse_to_replace(self._path, overwrite=self._overwrite)
        async with ClientSession() as session:
            first = await self._ask_first(session, stopped)
            if first is None:
                return Tally(0.0, 0, 0, 0, 0)
            self._writer = WireFileWriter(self._path, self._header(), overwrite=self._overwrite)
            try:
                self._add(first)
                self._answers += 1
                await self._work(session, stopped)
                self._writer.add(Ended(*self._now()))
            finally:
                self._writer.close()
        return self._tally()

    async def _work(self, session: ClientSession, stopped: asyncio.Event) -> None:
        tasks = [
            asyncio.create_task(self._end(stopped), name="recorder end"),
            asyncio.create_task(self._flush(), name="recorder flush"),
            asyncio.create_task(self._ask(session), name="recorder questions"),
            asyncio.create_task(self._stream(), name="recorder stream"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()  # all but the end only return by failing

    async def _end(self, stopped: asyncio.Event) -> None:
        """Return when it is time to end."""
        while not stopped.is_set() and not self._is_over():
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await stopped.wait()

    def _is_over(self) -> bool:
        seconds, begun_us = self._wanted.seconds, self._begun_us
        if seconds is None or begun_us is None:
            return False
        return self._now()[0] - begun_us >= seconds * 1e6

    async def _flush(self) -> None:
        assert self._writer is not None
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self._writer.flush()

    # REST

    async def _ask_first(self, session: ClientSession, stopped: asyncio.Event) -> RestAnswer | None:
        """The market list, which tells the source's mark, its time, and what it lists.

        None: stopped before it came.
        """
        asking = asyncio.create_task(self._get(session, MARKET_LIST), name="recorder first")
        ending = asyncio.create_task(stopped.wait(), name="recorder end")
        try:
            await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            if not asking.done():
                asking.cancel()
            await asyncio.wait((asking, ending))
        if asking.cancelled():
            return None
        answer = asking.result()
        if isinstance(answer, RestFailure):
            raise TransportError(
                f"nothing was recorded: {answer.reason}; check the address and the connection"
            )
        if answer.status in (418, 429):
            wait_s = refused_for_s(answer.status, answer.body)
            raise RateLimitedError(
                f"nothing was recorded: the exchange refused the first call ({answer.status});"
                f" wait {wait_s:g} s",
                retry_after_s=wait_s,
            )
        try:
            listed = [row.market for row in _markets.decode(answer.body)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProtocolError(
                f"nothing was recorded: {self._source.rest_url} answered {answer.status} and no"
                " market list; expected the REST address of an exchange, ending in /v1"
            ) from None
        for symbol in self._wanted.symbols:
            if symbol not in listed:
                raise UnknownSymbolError(symbol, tuple(get_close_matches(symbol, listed, n=3)))
        return answer

    async def _ask(self, session: ClientSession) -> None:
        """The opening, then a round a minute."""
        symbols = self._wanted.symbols
        for question in opening_lists(symbols):
            await self._question(session, question)
        for path, symbol in chart_series(symbols):
            to = None
            for _ in range(OPENING_PAGES):
                answer = await self._question(session, candle_page(path, symbol, to))
                to = _oldest_start(answer)
                if to is None:
                    break
        self._opened.set()
        while True:
            minute = (self._exchange_clock.now_ms() - ROUND_AFTER_MINUTE_MS) // MINUTE_MS + 1
            begins_ms = minute * MINUTE_MS + ROUND_AFTER_MINUTE_MS
            # A clock that is set back meanwhile does not make the wait longer than a minute.
            while 0 < (wait_ms := begins_ms - self._exchange_clock.now_ms()) <= MINUTE_MS:
                await asyncio.sleep(wait_ms / 1_000)
            for question in minutely(symbols, minute):
                await self._question(session, question)

    async def _question(self, session: ClientSession, target: str) -> RestAnswer | RestFailure:
        """Ask when it is time to, and record what came; a refusal is obeyed."""
        await self._until(lambda: self._next_question_s)
        self._next_question_s = self._clock.monotonic() + self._spacing_s
        answer = await self._get(session, target)
        self._add(answer)
        if isinstance(answer, RestAnswer):
            self._answers += 1
            if answer.status in (418, 429):
                self._obey(answer.status, answer.body, "questions")
        return answer

    async def _get(self, session: ClientSession, target: str) -> RestAnswer | RestFailure:
        """Ask once; no compression, so that the body is the wire's."""
        url = URL(self._source.rest_url.rstrip("/") + target, encoded=True)
        sent = self._exchange_clock.moment()
        try:
            async with session.get(
                url,
                timeout=_TIMEOUT,
                allow_redirects=False,
                headers={hdrs.ACCEPT_ENCODING: "identity"},
            ) as response:
                received = self._exchange_clock.moment()
                body = await _whole(response)
        except TimeoutError:
            return RestFailure(*self._now(), target, f"{url.authority} did not answer in time")
        except (ClientError, OSError) as error:
            reason = f"{url.authority} was not reached or cut the answer off ({error!s:.120})"
            return RestFailure(*self._now(), target, reason)
        if body is None:
            reason = f"{url.authority} answered with more than {MOST_BODY_BYTES} bytes"
            return RestFailure(*self._now(), target, reason)
        if response.status < 500:
            # Whatever stands before an exchange that is down carries no mark of it.
            self._source.origin.observe(response.headers.get(MARK_HEADER))
        self._observe_date(response.headers.get(hdrs.DATE), sent, received)
        headers = _headers(response.headers.items())
        return RestAnswer(*self._now(), target, response.status, headers, body)

    def _observe_date(self, date: str | None, sent: Moment, received: Moment) -> None:
        with suppress(ValueError):
            moment = parsedate_to_datetime(date or "")
            if moment.tzinfo is not None:
                self._exchange_clock.observe_date(epoch_ms(moment), sent=sent, received=received)

    # Stream

    async def _stream(self) -> None:
        """One connection at a time, for ever; each loss is recorded."""
        await self._opened.wait()
        failures = 0
        while True:
            await self._until(lambda: self._blocked_until_s)
            opened_s = self._clock.monotonic()
            reason = await self._stream_once()
            self._add(StreamBreak(*self._now(), reason))
            self._breaks += 1
            logger.warning("the stream broke: %s", reason)
            failures = 0 if self._clock.monotonic() - opened_s >= STABLE_S else failures + 1
            # Full jitter: many recorders that lost one exchange do not come back at once.
            await asyncio.sleep(self._rng.uniform(0.1, most_backoff_s(failures)))

    async def _stream_once(self) -> str:
        """Connect, subscribe, record until the connection ends; gives the reason."""
        try:
            # No `Origin`, which moves the call into a group of one in ten seconds.
            connection = await connect(
                self._source.ws_url,
                origin=None,
                compression=None,
                open_timeout=10,
                close_timeout=_CLOSE_TIMEOUT_S,
                ping_interval=_PING_S,
                ping_timeout=_PING_S,
                max_size=_MOST_FRAME_BYTES,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (418, 429):
                self._obey(status, bytes(error.response.body or b""), "the stream")
            return f"the upgrade was answered {status}"
        except (WebSocketException, OSError) as error:
            return f"not reached ({error!r:.120})"
        try:
            await self._subscribe(connection)
            await self._receive(connection)
        except ConnectionClosed as error:
            return f"lost ({error})"
        finally:
            try:
                await connection.close()
            finally:
                connection.transport.abort()

    async def _subscribe(self, connection: ClientConnection) -> None:
        response = connection.response
        assert response is not None
        self._source.origin.observe(response.headers.get(MARK_HEADER))
        headers = _headers(response.headers.raw_items())
        self._add(StreamOpened(*self._now(), response.status_code, headers))
        wanted = self._wanted
        request = msgspec.json.encode(
            [
                {"ticket": str(UUID(int=self._rng.getrandbits(128), version=4))},
                *({"type": kind, "codes": wanted.symbols} for kind in wanted.types),
                {"format": wanted.form},
            ]
        ).decode()
        sent = StreamRequest(*self._now(), request)
        self._add(sent)
        await connection.send(request)
        if self._begun_us is None:
            self._begun_us = sent.at_us
            if self._on_begin is not None:
                self._on_begin()

    async def _receive(self, connection: ClientConnection) -> NoReturn:
        while True:
            frame = await connection.recv()
            binary = isinstance(frame, bytes)
            data = frame if isinstance(frame, bytes) else frame.encode()
            self._add(StreamFrame(*self._now(), binary, data))
            self._frames += 1

    # Both

    def _obey(self, status: int, body: bytes, what: str) -> None:
        """Ask nothing, and after a 418 connect nowhere, before the time it names."""
        wait_s = refused_for_s(status, body)
        logger.warning("%s refused (%d): waiting %g s", what, status, wait_s)
        until_s = self._clock.monotonic() + wait_s
        self._next_question_s = max(self._next_question_s, until_s)
        self._blocked_until_s = max(self._blocked_until_s, until_s)

    async def _until(self, moment_s: Callable[[], float]) -> None:
        """Wait for a moment that may be put off meanwhile."""
        while (wait_s := moment_s() - self._clock.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    def _add(self, record: AnyRecord) -> None:
        assert self._writer is not None
        self._writer.add(record)

    def _now(self) -> tuple[int, int]:
        """`at_us` and `wall_ms` of a record."""
        return round((self._clock.monotonic() - self._zero_s) * 1e6), self._clock.now_ms()

    def _header(self) -> Header:
        at_us, wall_ms = self._now()
        return Header(
            exchange=self._source.origin.identity,
            mark=self._source.origin.mark,
            symbols=self._wanted.symbols,
            types=self._wanted.types,
            form=self._wanted.form,
            started_ms=wall_ms - at_us // 1_000,
            exchange_offset_ms=self._exchange_clock.offset_ms,
        )

    def _tally(self) -> Tally:
        assert self._writer is not None
        begun_us = self._begun_us
        seconds = 0.0 if begun_us is None else (self._now()[0] - begun_us) / 1e6
        size = self._writer.written_bytes
        return Tally(seconds, self._answers, self._frames, self._breaks, size)


def most_backoff_s(failures: int) -> float:
    """The longest wait before the next connect, after so many that failed in a row."""
    return min(0.5 * 2.0 ** min(failures, _MOST_DOUBLINGS), _MOST_BACKOFF_S)


async def _whole(response: ClientResponse) -> bytes | None:
    """The body; None if it is too large."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MOST_BODY_BYTES:
            return None
    return bytes(body)


def _headers(items: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Headers as text; bytes that are none become question marks."""
    return tuple((name.lower(), value.encode(errors="replace").decode()) for name, value in items)


def refused_for_s(status: int, body: bytes) -> float:
    """How long a 429 or 418 forbids further calls; 418 says it in its message (section 4)."""
    if status == 429:
        return TOO_FAST_S
    numbers = re.findall(rb"\d+", body[:1_000])
    told_s = next((float(number) for number in numbers if number != b"418"), _BLOCKED_S)
    return min(told_s, _LONGEST_BLOCK_S)


def _oldest_start(answer: RestAnswer | RestFailure) -> str | None:
    """Where the page before this one ends; None if there is none."""
    if isinstance(answer, RestFailure) or answer.status != 200:
        return None
    try:
        rows = _candles.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return rows[-1].candle_date_time_utc if len(rows) == PAGE_CANDLES else None


def _split(name: str, text: str) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise InvalidRequestError(f"{name} must name at least one, was {text!r}")
    return parts
