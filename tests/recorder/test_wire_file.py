"""The file of a recording: what goes in comes out, and what is broken is named."""

from __future__ import annotations

import random
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest

from tests.recorder.samples import answer, begin, book, ended, frame, header, trade, write
from upbit_backbone.errors import (
    InvalidRequestError,
    StorageCorruptError,
    StorageUnavailableError,
)
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.records import AnyRecord, StreamBreak, StreamOpened, duration_s
from upbit_backbone.recorder.wire_file import CHUNK_BYTES, WireFile, WireFileWriter

RECORDS: list[AnyRecord] = [
    answer(
        0.0, "/market/all?is_details=true", b'[ {"market":"KRW-BTC"} ]\n', 200, (("date", "now"),)
    ),
    answer(0.5, "/ticker?markets=KRW-BTC", b"\xff not JSON", status=500),
    StreamOpened(900_000, 5, 101, (("server", "a fake"),)),
    begin(1.0),
    frame(1.1, trade(1)),
    frame(1.2, book(2)),
    StreamBreak(1_300_000, 6, "lost"),
    ended(2.5),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "a.rec", RECORDS, chunk_after_each=True)


def test_every_record_comes_out_as_it_went_in(file: Path) -> None:
    recording = open_recording(file)
    assert list(recording.records()) == RECORDS
    assert recording.header == header()
    assert recording.complete
    assert (recording.begins_us, recording.ends_us) == (1_000_000, 2_500_000)
    assert duration_s(recording) == 1.5
    assert not file.read_bytes().count(str(file.parent).encode())


def test_the_name_follows_from_the_content_alone(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "another name.rec"
    copy.write_bytes(file.read_bytes())
    other = write(tmp_path / "b.rec", RECORDS[:-1])
    assert open_recording(copy).name == open_recording(file).name
    assert open_recording(other).name != open_recording(file).name
    assert open_recording(file).name.startswith("replay-")


def test_cut_anywhere_it_holds_all_whole_chunks(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    ends = [content.find(b"CHNK", at + 1) for at in range(len(content))]
    bounds = sorted({end for end in ends if end >= 0} | {len(content)})
    cut_file = tmp_path / "cut.rec"
    near = {bound + by for bound in bounds[1:] for by in (-1, 0, 1)}
    lengths = near | set(range(bounds[1], len(content), 17))
    for length in sorted(lengths & set(range(bounds[1], len(content)))):
        cut_file.write_bytes(content[:length])
        whole = sum(bound <= length for bound in bounds) - 2  # the first holds the header
        recording = WireFile(cut_file)
        assert list(recording.records()) == RECORDS[:whole], length
        assert not recording.complete
        assert recording.lost_bytes == length - max(b for b in bounds if b <= length)


@pytest.mark.parametrize("length", [1, 7, 11, 30, 60])
def test_one_without_a_header_holds_nothing(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(StorageCorruptError, match="breaks off before its header"):
        open_recording(file)


def test_a_flipped_bit_anywhere_is_noticed(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    chance = random.Random(4)
    flipped = tmp_path / "flipped.rec"
    for at in [12, *chance.sample(range(12, len(content)), 200)]:
        flipped.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(StorageCorruptError, match=r"is damaged at byte \d+"):
            open_recording(flipped)


def test_a_file_changed_after_it_was_opened_is_noticed(file: Path) -> None:
    recording = open_recording(file)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageCorruptError):
        list(recording.records())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"timestamp,open,high", "is no recording"),
        (b"UPBITREC\x02\x00\x00\x00", "recording of form 2"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "x"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=words) as caught:
        open_recording(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_there_is_replaced_only_on_demand(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(InvalidRequestError, match="exists already"):
        WireFileWriter(file, header(), overwrite=False)
    assert file.read_bytes() == before
    WireFileWriter(file, header(), overwrite=True).close()
    assert list(open_recording(file).records()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError, match="folder that exists"):
        WireFileWriter(tmp_path / "no" / "folder.rec", header(), overwrite=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(StorageUnavailableError, match="/dev/full cannot be written"):
        WireFileWriter(Path("/dev/full"), header(), overwrite=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
@pytest.mark.parametrize("room", [1, 30, 400])
def test_what_was_written_before_the_disk_was_full_can_be_replayed(
    tmp_path: Path, room: int
) -> None:
    """Though there is room again, and the recorder closes the file in peace."""
    import resource

    file = tmp_path / "a.rec"
    writer = WireFileWriter(file, header(), overwrite=False)
    writer.add(begin())
    writer.add(frame(1.0, trade(1)))
    writer.flush()
    whole = file.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer.add(frame(2.0, random.Random(1).randbytes(5_000)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + room, before[1]))
    try:
        with pytest.raises(StorageUnavailableError, match="before can be replayed"):
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.add(frame(3.0, trade(3)))
    writer.close()
    assert file.stat().st_size == whole == writer.written_bytes
    recording = WireFile(file)
    assert list(recording.records()) == [begin(), frame(1.0, trade(1))]
    assert not recording.complete


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_a_file_that_is_being_recorded_is_not_replaced_even_by_force(file: Path) -> None:
    writer = WireFileWriter(file, header(), overwrite=True)
    writer.add(begin())
    with pytest.raises(InvalidRequestError, match="another recorder is writing"):
        WireFileWriter(file, header(), overwrite=True)
    writer.close()
    assert list(WireFile(file).records()) == [begin()]
    WireFileWriter(file, header(), overwrite=True).close()


def test_by_force_a_link_keeps_its_file(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.rec"
    link.symlink_to(file)
    WireFileWriter(link, header(), overwrite=True).close()
    assert link.is_symlink()
    assert list(WireFile(file).records()) == []


def test_a_chunk_that_claims_to_be_huge_is_not_read(file: Path) -> None:
    huge = struct.pack("<4sIIqq", b"CHNK", 0xFFFF_FFFF, 0, 0, 0)
    content = file.read_bytes() + huge + struct.pack("<I", zlib.crc32(huge)) + b"x"
    file.write_bytes(content)
    with pytest.raises(StorageCorruptError, match="would have 4294967295 bytes"):
        WireFile(file)


def test_cut_at_every_byte_a_small_file_opens_or_is_refused_in_one_sentence(
    tmp_path: Path,
) -> None:
    content = write(
        tmp_path / "small.rec", [begin(), ended(1.0)], chunk_after_each=True
    ).read_bytes()
    cut = tmp_path / "cut.rec"
    opened, said = list[int](), list[str]()
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        try:
            opened.append(len(list(open_recording(cut).records())))
        except (InvalidRequestError, StorageCorruptError) as error:
            said.append(str(error))
    assert len(said) + len(opened) == len(content) + 1
    empty, headless = sorted(set(said), key=len)
    assert empty == f"{cut} is empty: expected a recording made by 'upbit-backbone record'"
    assert headless.startswith(f"{cut}: the recording breaks off before its header, there is")
    assert opened == sorted(opened)
    assert set(opened) == {0, 1, 2}


def test_neither_side_holds_more_than_a_chunk(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(50_000)
    number = 400
    tracemalloc.start()
    try:
        write(tmp_path / "big.rec", (frame(at, content) for at in range(number)))
        recording = open_recording(tmp_path / "big.rec")
        assert sum(1 for _ in recording.records()) == number
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES < number * len(content) / 9
