"""Where ``upbit-backbone`` begins; also ``python -m upbit_backbone``."""

from upbit_backbone.interrupts import leave_at_once


def main() -> None:
    """Run the command line; Ctrl+C while it is still imported ends it without a traceback."""
    leave_at_once()
    from upbit_backbone.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
