"""Both languages are complete, and what is committed is compiled of what is committed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PySide6.QtCore import QCoreApplication

from ui.language import Translations
from upbit_backbone.resources import resource_path

ROOT = Path(__file__).resolve().parents[2]
TS = resource_path("translations/upbit_backbone_ko.ts")


def tool(name: str, *arguments: str | Path) -> None:
    # Beside the interpreter, where the package puts them.
    program = Path(sys.executable).with_name(f"pyside6-{name}")
    subprocess.run([program, *arguments], check=True, capture_output=True, timeout=60)


def messages(ts: Path) -> dict[tuple[str, str], ElementTree.Element]:
    found = {}
    for context in ElementTree.parse(ts).getroot().iter("context"):
        for message in context.iter("message"):
            key = (context.findtext("name") or "", message.findtext("source") or "")
            found[key] = message
    return found


def test_every_text_of_the_program_is_translated(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.ts"
    sources = sorted(ROOT.joinpath("ui").rglob("*.py"))
    tool("lupdate", *sources, "-ts", fresh, "-locations", "none", "-silent")
    assert set(messages(fresh)) == set(messages(TS))
    unfinished = [
        key
        for key, message in messages(TS).items()
        if message.find("translation[@type]") is not None or not message.findtext("translation")
    ]
    assert unfinished == []


def test_no_text_hides_in_an_f_string() -> None:
    """lupdate does not look into them."""
    for module in ROOT.joinpath("ui").rglob("*.py"):
        assert not re.search(r"\{(self\.tr|translate)\(", module.read_text("utf-8")), module


def test_the_compiled_file_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.qm"
    tool("lrelease", TS, "-qm", fresh)
    assert fresh.read_bytes() == TS.with_suffix(".qm").read_bytes()


def test_translations_keep_their_places_for_values() -> None:
    for key, message in messages(TS).items():
        places = re.findall(r"{\d}", key[1])
        assert sorted(places) == sorted(re.findall(r"{\d}", message.findtext("translation") or ""))


@pytest.mark.parametrize(
    ("language", "yes", "price"), [("ko", "예(&Y)", "현재가"), ("en", "&Yes", "Price")]
)
def test_texts_of_qt_and_ours_speak_the_language(
    translations: Translations, language: str, yes: str, price: str
) -> None:
    translations.use("ko" if language == "ko" else "en")
    assert QCoreApplication.translate("QPlatformTheme", "&Yes") == yes
    assert QCoreApplication.translate("MarketTable", "Price") == price
