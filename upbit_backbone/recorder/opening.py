"""Open a recording, whatever its form."""

from __future__ import annotations

from pathlib import Path

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.recorder import captures
from upbit_backbone.recorder.records import Recording
from upbit_backbone.recorder.wire_file import WireFile, cannot_read


def open_recording(path: Path) -> Recording:
    """Check the file and give its recording; reads all of it once.

    Raises:
        InvalidRequestError: missing, empty, or no recording.
        StorageCorruptError: damaged.
    """
    try:
        with path.open("rb") as file:
            first = file.read(len(captures.MAGIC))
    except OSError as error:
        raise cannot_read(path, error) from error
    if not first:
        raise InvalidRequestError(
            f"{path} is empty: expected a recording made by 'upbit-backbone record'"
        )
    return captures.CapturedSocket(path) if first == captures.MAGIC else WireFile(path)
