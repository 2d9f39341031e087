"""The command `affuse` from its first moment: Ctrl-C ends it without a word while Python still imports the rest."""

from __future__ import annotations

import os
import signal


def stop_at_once(*_) -> None:
    """What Ctrl-C does where nothing has begun, or all is done."""
    os._exit(130)


def main() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
        signal.signal(signal.SIGINT, stop_at_once)
    from affuse.commands import main

    main()


if __name__ == "__main__":
    main()
