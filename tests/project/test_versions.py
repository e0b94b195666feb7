"""The exact versions in pyproject.toml are the ones that run, and none is left over.

Environments made by `uv run` obey the list. One made by hand may not: then these tests
say which versions differ from the tested ones.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

import upbit_backbone
from tests.project.source_rules import REPOSITORY

# What makes environments lies in some of them (`.venv/bin/pip install uv`), but the
# project does not need it.
_INSTALLERS = {"pip", "uv", "wheel"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pinned(pyproject: dict[str, Any]) -> dict[NormalizedName, str]:
    """Package -> version, of the constraints that hold for this Python and platform."""
    requirements = map(Requirement, pyproject["tool"]["uv"]["constraint-dependencies"])
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


@pytest.fixture(scope="module")
def installed(pyproject: dict[str, Any]) -> dict[NormalizedName, str]:
    without = {pyproject["project"]["name"], *_INSTALLERS}
    return {
        canonicalize_name(found.name): found.version
        for found in metadata.distributions()
        if found.name not in without
    }


def test_everything_installed_has_the_listed_version(
    pinned: dict[NormalizedName, str], installed: dict[NormalizedName, str]
) -> None:
    wrong = {name: version for name, version in installed.items() if pinned.get(name) != version}
    assert not wrong, "not in constraint-dependencies; `uv run` makes a fitting environment"


def test_everything_listed_is_installed(
    pinned: dict[NormalizedName, str], installed: dict[NormalizedName, str]
) -> None:
    assert pinned.keys() <= installed.keys()


def test_a_listed_version_is_exact(pyproject: dict[str, Any]) -> None:
    uv = pyproject["tool"]["uv"]
    listed = uv["constraint-dependencies"] + uv["build-constraint-dependencies"]
    assert [entry for entry in listed if not re.match(r"[a-z0-9-]+==[0-9.]+(; |$)", entry)] == []


def test_both_spellings_of_the_development_tools_agree(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    assert project["optional-dependencies"]["dev"] == pyproject["dependency-groups"]["dev"]


def test_no_lock_file_is_kept() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "uv.lock" in ignored


def test_the_package_says_its_version_and_the_changelog_has_it() -> None:
    assert upbit_backbone.__version__ == metadata.version("upbit-backbone") == "1.0.0"
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{upbit_backbone.__version__}]" in changelog
