"""Start the desktop program: `uv run run_desktop_ui.py --help`.

Reads the command line, looks whether Qt can start at all, and only then imports it.
"""

from __future__ import annotations

import sys

from upbit_backbone.interrupts import leave_at_once


def main(arguments: list[str] | None = None) -> int:
    """Run the program; gives its exit code.

    0: left as usual, also by Ctrl+C. 2: bad flags, or something the machine lacks. 3: a
    screenshot was asked for and no chart was drawn in time, or no such market is listed.
    130: Ctrl+C before there was a window.
    """
    leave_at_once()
    import logging

    from ui.flags import EXIT_BAD_INPUT, parser, refuse
    from ui.preflight import check_data_dir, ready_line, run_preflight

    flags = parser().parse_args(arguments)
    run_preflight()
    if flags.data_dir is not None and (problem := check_data_dir(flags.data_dir)):
        print(problem, file=sys.stderr)
        return EXIT_BAD_INPUT
    if flags.check:
        print(ready_line())
        return 0
    logging.basicConfig(
        level=logging.INFO if flags.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    from ui.options import read_options
    from upbit_backbone.errors import BackboneError

    try:
        options = read_options(flags)
    except (BackboneError, ValueError) as exc:
        return refuse(str(exc))
    from ui.app import run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
