"""Where the files that ship with the program lie."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def resource_path(name: str) -> Path:
    """The path of a shipped file, e.g. ``"market/tile.npz"``.

    In an installed wheel resources lie in ``upbit_backbone/_resources``; in a checkout
    in ``resources`` beside the package.

    Raises:
        FileNotFoundError: no such resource.
    """
    inside = _HERE / "_resources"
    path = (inside if inside.is_dir() else _HERE.parent / "resources") / name
    if not path.exists():
        raise FileNotFoundError(f"resource {name!r} is not in {path.parent}")
    return path
