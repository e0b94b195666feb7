"""Every test that the table of scenarios names exists."""

import re
from pathlib import Path

import tests.faults

FOLDER = Path(__file__).parent


def test_every_scenario_of_the_table_has_its_test() -> None:
    rows = [line for line in (tests.faults.__doc__ or "").splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`([a-z_:0-9]{12,})`", row)]
    assert len(named) > 35
    missing = []
    for name in named:
        module, _, test = name.rpartition("::")
        file = FOLDER / f"test_{module or 'scenarios'}.py"
        if f"def test_{test}(" not in file.read_text("utf-8"):
            missing.append(name)
    assert missing == []
