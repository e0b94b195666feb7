"""The wheel holds the program and its resources, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.project.source_rules import REPOSITORY

_READ_A_RESOURCE = """
import sys
import upbit_backbone
from upbit_backbone.resources import resource_path

path = resource_path(sys.argv[1])
path.read_bytes()
print(upbit_backbone.__file__)
print(path)
"""


@pytest.fixture(scope="module")
def uv() -> str:
    """The uv that runs these tests (`uv run` names itself), or the one on the path."""
    found = os.environ.get("UV") or shutil.which("uv") or shutil.which("uv", path=_scripts())
    if found is None:
        pytest.fail("uv is not on the path: run the tests as `uv run pytest`", pytrace=False)
    return found


@pytest.fixture(scope="module")
def wheel(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run(uv, "build", "--wheel", "--out-dir", str(folder), str(REPOSITORY))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_both_packages_and_the_resources(contents: list[str]) -> None:
    resources = {
        f"upbit_backbone/_resources/{path.relative_to(REPOSITORY / 'resources').as_posix()}"
        for path in (REPOSITORY / "resources").rglob("*")
        if path.is_file()
    }
    modules = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("upbit_backbone", "ui")
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert resources | modules <= set(contents)


def test_nothing_else_is_in_it(contents: list[str]) -> None:
    tops = {name.partition("/")[0] for name in contents}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert tops - info == {"upbit_backbone", "ui"}
    assert len(info) == 1
    assert [name for name in contents if "__pycache__" in name] == []


def test_license_and_notice_travel_along(contents: list[str]) -> None:
    names = {Path(name).name for name in contents if ".dist-info/licenses/" in name}
    assert names == {"LICENSE", "NOTICE"}


def test_an_installed_wheel_finds_its_resources(uv: str, wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    _run(uv, "venv", "--no-project", "--python", sys.executable, str(environment))
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    _run(uv, "pip", "install", "--no-deps", "--python", str(python), str(wheel))
    # The libraries come from this environment, behind the fresh one on the path: a path
    # file, which does not lead on to the path file of the checkout.
    (site,) = environment.rglob("site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    some = next(path for path in sorted((REPOSITORY / "resources").rglob("*")) if path.is_file())
    name = some.relative_to(REPOSITORY / "resources").as_posix()
    package, resource = _run(str(python), "-I", "-c", _READ_A_RESOURCE, name).splitlines()
    assert Path(package) == site / "upbit_backbone" / "__init__.py"
    assert Path(resource) == site / "upbit_backbone" / "_resources" / name
    assert Path(resource).read_bytes() == some.read_bytes()


def _scripts() -> str:
    return sysconfig.get_path("scripts")


def _run(*command: str) -> str:
    """Run a command away from the checkout; its words are the failure's."""
    # VIRTUAL_ENV would draw uv to the environment of the tests.
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        command,
        cwd=REPOSITORY.parent,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = done.stdout + done.stderr
        if "hatchling" in words and ("fetch" in words or "connect" in words):
            words = f"the package registry cannot be reached to build the wheel:\n{words}"
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{words}", pytrace=False)
    return done.stdout
