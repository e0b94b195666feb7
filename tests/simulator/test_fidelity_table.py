"""Every test that the fidelity table names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "simulator.md"


def test_every_test_named_in_the_fidelity_table_exists() -> None:
    named = re.findall(r"`((?:tests/)?[\w/]+\.py)::(\w+)`", TABLE.read_text("utf-8"))
    assert len(named) > 50
    missing = []
    for path, name in named:
        file = ROOT / path if "/" in path else ROOT / "tests" / "simulator" / path
        if not file.is_file() or f"def {name}(" not in file.read_text("utf-8"):
            missing.append(f"{path}::{name}")
    assert missing == []
