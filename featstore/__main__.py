"""The command ``featstore``, which ``python -m featstore`` is, too."""

from __future__ import annotations

import signal
import sys

from featstore.streams import prepare_streams


def main() -> None:
    """Run the command line. Ctrl-C is quiet even before a command has begun."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # importing takes half a second, in which nothing is to be kept
    prepare_streams()
    from cli import app

    signal.signal(signal.SIGINT, before)
    try:
        app(prog_name="featstore")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
