"""Write ``docs/api.md``: every public name of the package, from its source.

Signatures and docstrings are taken from the parsed sources, so that the page is the same on
every Python. Run it from anywhere: ``uv run python tools/build_api_docs.py``.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import upbit_backbone
from upbit_backbone import compat, indicators, models, price, protocol

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
PLACES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # Title, what is said below it, modules whose public names stand there.
    (
        "The calls and streams",
        "",
        (
            "upbit_backbone.api.market_data_api",
            "upbit_backbone.api.stream",
            "upbit_backbone.api.chunks",
        ),
    ),
    (
        "Settings, and the house behind the calls",
        "",
        ("upbit_backbone.config", "upbit_backbone.manager", "upbit_backbone.api."),
    ),
    ("Values", "", ("upbit_backbone.models",)),
    ("Requests, answers and figures", "", ("upbit_backbone.protocol", "upbit_backbone.")),
    ("Errors", "", ("upbit_backbone.errors",)),
    (
        "Indicators",
        "Import from `upbit_backbone.indicators`; `IndicatorSeries` also from `upbit_backbone`.",
        ("upbit_backbone.indicators.",),
    ),
    ("Prices", "Import from `upbit_backbone.price`.", ("upbit_backbone.price",)),
    (
        "Names of earlier programs",
        """Import from `upbit_backbone.compat`. Each warns with a `DeprecationWarning`. All objects
made without arguments have `await get_ticker_data(symbol)` and `await get_candle_data(symbol,
timeframe, count=None, start_time=None, end_time=None, priority=Priority.NORMAL)`, too.""",
        ("upbit_backbone.compat",),
    ),
)
WIDTH = 96
PRICES = ("format_price", "price_decimals", "tick_size")
HEAD = """# Public names

Written by `tools/build_api_docs.py` from the docstrings: change those, and run it again.
What is not listed here may change without notice. Import from `upbit_backbone` unless a section
says otherwise.
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_SECTION = re.compile(r"(Args|Returns|Raises|Attributes|Source):(?: (.*))?$")
_ENTRY = re.compile(r"([A-Za-z_][\w ,*]*): (.+)$")


def api_page() -> str:
    """The whole page.

    Raises:
        LookupError: a public name whose source is not found.
    """
    sections: dict[str, list[str]] = {title: [] for title, _, _ in PLACES}
    # What everybody comes for stands first.
    for name, value in sorted(
        public_names().items(), key=lambda item: (item[0] != "MarketDataAPI", item[0].lower())
    ):
        module = compat.__name__ if name.startswith("compat.") else value.__module__
        sections[_section_of(module)].append(_described(name, value))
    sections["Values"].append(_literals())
    parts = [HEAD]
    for title, words, _ in PLACES:
        parts += [f"## {title}\n", *([f"{words}\n"] if words else []), *sections[title]]
    return "\n".join(parts).rstrip() + "\n"


def _literals() -> str:
    """Words that arguments and fields take, by the names that signatures have for them."""
    lines = ["### Words", "", "What the names of types in signatures and fields stand for.", ""]
    for module in (models, protocol):
        for statement, _ in _documented(_tree(inspect.getsourcefile(module) or "").body):
            words = statement.value
            if isinstance(words, ast.Subscript) and ast.unparse(words.value) == "Literal":
                lines.append(f"- `{_target(statement)}`: `{ast.unparse(words.slice).strip('()')}`")
    return "\n".join([*lines, ""])


def public_names() -> dict[str, Any]:
    """What the package shows, by name; names of `compat` begin with ``compat.``."""
    prices = {name: getattr(price, name) for name in PRICES}
    old = {f"compat.{name}": value for name, value in _names_of(compat).items()}
    return _names_of(upbit_backbone) | _names_of(indicators) | prices | old


def _names_of(module: ModuleType) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return {name: getattr(module, name) for name in module.__all__}


def _section_of(module: str) -> str:
    """The place that names the module best."""
    fitting = [
        (len(prefix), title)
        for title, _, prefixes in PLACES
        for prefix in prefixes
        if module == prefix or (prefix.endswith(".") and module.startswith(prefix))
    ]
    return max(fitting)[1]


def _described(name: str, value: Any) -> str:
    plain = name.removeprefix("compat.")
    if inspect.ismethod(value) or (inspect.isclass(value) and value.__name__ != plain):
        return f"### `{plain}`\n\nAnother name of `{value.__qualname__}`.\n"
    if inspect.isclass(value):
        node = _node_of(value)
        assert isinstance(node, ast.ClassDef)
        return _class(plain, value, node)
    if not inspect.isfunction(value):
        return f"### `{plain}`\n\n{_prose(_words_below(plain))}\n"
    function = _node_of(value)
    assert not isinstance(function, ast.ClassDef)
    return "\n".join(_function("###", plain, value.__module__, function))


def _function(level: str, name: str, module: str, node: Function) -> list[str]:
    words = _prose(ast.get_docstring(node))
    heading = [f"{level} `{name}`", ""] if level else []
    code = ["```python", _signature(name, module, node), "```", ""]
    return [*heading, *code, *([words, ""] if words else [])]


def _words_below(name: str) -> str:
    """What stands below an alias of a type."""
    for target, docstring in _documented(_tree(inspect.getsourcefile(compat) or "").body):
        if _target(target) == name:
            return docstring
    raise LookupError(f"{name} has no docstring")


def _class(name: str, value: type, node: ast.ClassDef) -> str:
    bases = [ast.unparse(base) for base in node.bases]
    known = [base for base in bases if base.endswith(("Error", "Enum"))]
    heading = f"### `{name}`" + (f" ({', '.join(known)})" if known else "")
    lines = [heading, "", _prose(ast.get_docstring(node)), ""]
    constructor = next((f for f in _functions(node) if f.name == "__init__"), None)
    if constructor is not None:
        words = ast.get_docstring(constructor) or ""
        if not words.startswith("For the composition root") and len(constructor.args.args) > 1:
            lines += _function("", name, value.__module__, constructor)
    fields = list(_fields(value, node))
    lines += [*fields, ""] if fields else []
    for function in _functions(node):
        if function.name.startswith("_"):
            continue
        lines += _function("####", f"{name}.{function.name}", value.__module__, function)
    return "\n".join(lines)


def _fields(value: type, node: ast.ClassDef) -> Iterator[str]:
    """Annotated attributes, members of an enumeration and properties, each as a list item."""
    is_enum = issubclass(value, enum.Enum)
    for target, docstring in _documented(node.body):
        name = _target(target)
        if name.startswith("_"):
            continue
        if isinstance(target, ast.AnnAssign):
            default = "" if target.value is None else f" = {ast.unparse(target.value)}"
            shown = f"`{name}: {ast.unparse(target.annotation)}{_short(default)}`"
        elif is_enum:
            shown = f"`{name} = {ast.unparse(target.value)}`"
        else:
            continue
        yield f"- {shown}" + (f": {_flat(docstring)}" if docstring else "")
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and _is(function, "property"):
            if function.name.startswith("_"):
                continue
            words = _flat(ast.get_docstring(function))
            returns = ast.unparse(function.returns) if function.returns else "Any"
            yield f"- `{function.name}: {returns}` (read-only)" + (f": {words}" if words else "")


def _short(default: str) -> str:
    """A default that is a call says nothing to a reader."""
    return "" if "(" in default and not default.startswith(" = (") else default


def _documented(body: list[ast.stmt]) -> Iterator[tuple[ast.AnnAssign | ast.Assign, str]]:
    """Assignments, each with the docstring that stands below it."""
    for statement, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            docstring = ""
            if (
                isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docstring = inspect.cleandoc(below.value.value)
            yield statement, docstring


def _target(statement: ast.AnnAssign | ast.Assign) -> str:
    target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
    return ast.unparse(target)


def _functions(node: ast.ClassDef) -> Iterator[Function]:
    for function in node.body:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and not (
            _is(function, "overload") or _is(function, "property")
        ):
            yield function


def _is(function: Function, decorator: str) -> bool:
    return any(ast.unparse(found) == decorator for found in function.decorator_list)


def _signature(name: str, module: str, function: Function) -> str:
    """How it is called, on one line or with a line for each argument."""
    bare = ast.parse(f"def f({ast.unparse(function.args)}): ...").body[0]
    assert isinstance(bare, ast.FunctionDef)
    arguments = bare.args
    first = [*arguments.posonlyargs, *arguments.args][:1]
    if first and first[0].arg in ("self", "cls"):
        (arguments.posonlyargs or arguments.args).pop(0)
    _Constants(vars(sys.modules[module])).visit(arguments)
    waiting = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    if function.name == "__init__":
        returns = ""
    parts = [one.replace("=", " = ", 1) for one in _split(ast.unparse(arguments))]
    line = f"{waiting}{name}({', '.join(parts)}){returns}"
    if len(line) <= WIDTH:
        return line
    return f"{waiting}{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


class _Constants(ast.NodeTransformer):
    """Puts the numbers of a module in the place of their names."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        value = self._names.get(node.id) if node.id.isupper() else None
        return ast.Constant(value) if isinstance(value, int | float | str) else node


def _split(arguments: str) -> list[str]:
    """Cut at the commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in (docstring or "").splitlines():
        begun = _SECTION.match(line)
        if begun:
            section = begun[1]
            lines += ["", f"{section}: {begun[2] or ''}".rstrip(), ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            entry = _ENTRY.match(line.strip())
            lines.append(f"- `{entry[1]}`: {entry[2]}" if entry else f"- {line.strip()}")
        elif section and line.startswith("     "):
            lines[-1] += f" {line.strip()}"
        else:
            section = section if not line else ""
            lines.append(line)
    return _ticks(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())


def _flat(docstring: str | None) -> str:
    return _ticks(" ".join((docstring or "").split()))


def _ticks(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _node_of(value: Any) -> ast.ClassDef | Function:
    for node in _tree(inspect.getsourcefile(value) or "").body:
        if isinstance(node, _DEFINITIONS) and node.name == value.__name__:
            return node
    raise LookupError(f"the source of {value!r} was not found")


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
