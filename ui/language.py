"""The language of the program: translations, and how numbers and days are written."""

from __future__ import annotations

import logging
from typing import Literal, get_args

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QTranslator

from upbit_backbone.resources import resource_path

logger = logging.getLogger(__name__)

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
_LOCALES: dict[Language, str] = {"ko": "ko_KR", "en": "en_US"}


def is_korean() -> bool:
    """Whether the program speaks Korean."""
    return QLocale().language() is QLocale.Language.Korean


class Translations:
    """Installs one language at a time; widgets hear of it by `QEvent.LanguageChange`.

    The source text is English, so English installs nothing.
    """

    def __init__(self, app: QCoreApplication) -> None:
        self._app = app
        self._installed: list[QTranslator] = []
        self.language: Language = "en"

    def use(self, language: Language) -> None:
        """Speak this language from now on."""
        self.language = language
        # First the locale: widgets write days and names when the translators arrive.
        QLocale.setDefault(QLocale(_LOCALES[language]))
        for translator in self._installed:
            self._app.removeTranslator(translator)
        self._installed = []
        if language == "en":
            return
        ours = resource_path(f"translations/upbit_backbone_{language}.qm")
        qt = QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)
        for file in (f"{qt}/qtbase_{language}.qm", str(ours)):
            translator = QTranslator()
            if translator.load(file):
                self._app.installTranslator(translator)
                self._installed.append(translator)
            else:
                logger.warning("no translation in %s", file)
