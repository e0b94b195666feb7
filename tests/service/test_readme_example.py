"""The README's ten lines are a program that runs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


async def test_the_embedding_example_runs_as_printed(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(f"{example}\nimport asyncio\nasyncio.run(main())\n")
    environment = os.environ | {
        "UPBIT_BACKBONE_EXCHANGE": "simulator",
        "UPBIT_BACKBONE_DATA_DIR": str(tmp_path / "data"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "dev", "-W", "error", str(program),
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert err == b""
    lines = out.decode().splitlines()
    assert len(lines) == 3
    assert "200 candles" in lines[0]
    assert lines[2].endswith(("forming", "closed"))
