"""How work that takes long tells of itself."""

from collections.abc import Callable

Announce = Callable[[str], None]  # a sentence on what is about to happen
Progress = Callable[
    [str, str | None, bool], None
]  # the state so far, why an item failed, whether it was the last
