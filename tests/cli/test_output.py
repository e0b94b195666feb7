"""Where standard output goes: closed, full, unread, or in an encoding that lacks our signs."""

from __future__ import annotations

import asyncio
import codecs
import io
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.running import START
from upbit_backbone.commands.output import Output, OutputLost, plain_signs, run_with_output

FULL = "the output cannot be written: No space left on device\n"
CLOSED = "standard output is closed: let it go somewhere, e.g. > /dev/null\n"
WRONG = "config --rest-url nowhere --ws-url nowhere"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
async def test_output_that_goes_nowhere_is_no_traceback(tmp_path: Path) -> None:
    cases = (
        ("--help > /dev/full", 1, FULL),
        ("config --json > /dev/full", 1, FULL),
        ("config >&-", 1, CLOSED),
        # What nobody can be told has its exit code all the same.
        (f"{WRONG} 2>&-", 2, ""),
        (f"{WRONG} 2> /dev/full", 2, ""),
    )
    ended = await asyncio.gather(*(in_shell(tmp_path, line) for line, _, _ in cases))
    assert ended == [(code, "", told) for _, code, told in cases]


@pytest.mark.skipif(os.name == "nt", reason="no such shell")
async def test_a_reader_that_is_gone_is_no_failure_of_any_command(tmp_path: Path) -> None:
    lines = ("--version", "config --json")
    piped = (f"{{ {{ %s {line}; }}; echo $? >&2; }} | true" for line in lines)
    for code, out, told in await asyncio.gather(*(in_shell(tmp_path, line) for line in piped)):
        assert (code, out, told) == (0, "", "0\n")


async def test_an_encoding_that_lacks_our_signs_changes_no_document(tmp_path: Path) -> None:
    folder = tmp_path / "비트코인 ✔"
    asked = (f"config --data-dir {shlex.quote(str(folder))} --json", "--help")
    (code, document, told), helped = await asyncio.gather(
        *(in_shell(tmp_path, line, PYTHONIOENCODING="ascii") for line in asked)
    )
    assert (code, told) == (0, "")
    assert json.loads(document)["settings"]["data_dir"]["value"] == str(folder)
    assert (helped[0], helped[2]) == (0, "")
    assert "Ctrl+C" in helped[1]


def test_a_sign_that_an_encoding_lacks_has_a_plain_one_as_wide() -> None:
    codecs.register_error("tests.plain", plain_signs)

    def told(text: str, encoding: str) -> str:
        return text.encode(encoding, "tests.plain").decode(encoding)

    assert told("✔ ✘ █ ▲ ▼ → 비트코인 é", "ascii") == "+ x # ^ v > ???????? ?"
    assert told("✔ ✘ █ ▲ ▼ → 비트코인", "cp949") == "+ x # ▲ ▼ → 비트코인"
    assert told("/data/\udcff", "utf-8") == r"/data/\udcff"


@pytest.mark.parametrize(
    ("error", "gone"),
    [(BrokenPipeError(32, "Broken pipe"), True), (OSError(28, "No space left on device"), False)],
)
def test_output_says_why_it_is_lost(
    error: OSError, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise error

    with pytest.raises(OutputLost) as lost:
        Output(Full(), encoding="utf-8", write_through=True).write("text")
    assert (lost.value.reader_gone, str(lost.value)) == (gone, error.strerror)

    def failing() -> None:
        sys.stdout.write("text")
        sys.exit(3)

    class Kept(io.BytesIO):
        def close(self) -> None: ...

    told = Kept()
    with monkeypatch.context() as streams:
        streams.setattr(sys, "stdout", io.TextIOWrapper(Full(), encoding="utf-8"))
        streams.setattr(sys, "stderr", io.TextIOWrapper(told, encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            run_with_output(failing)
        sys.stderr.flush()
    # What the command found it told to nobody: a pipeline is not to fail by it.
    assert (ended.value.code, told.getvalue().decode()) == ((0, "") if gone else (1, FULL))


async def in_shell(folder: Path, line: str, **variables: str) -> tuple[int, str, str]:
    """Run the command with some redirections; %s in a line stands for it."""
    program = shlex.join([sys.executable, "-W", "error", "-c", START])
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", line.replace("%s", program) if "%s" in line else f"{program} {line}",
        env={**os.environ, "UPBIT_BACKBONE_DATA_DIR": str(folder), **variables},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    encoding = variables.get("PYTHONIOENCODING", "utf-8")
    return process.returncode, out.decode(encoding), err.decode(encoding)
