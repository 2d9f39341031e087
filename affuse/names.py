"""Public names that are imported when they are first asked for (PEP 562), so that a package itself costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

TYPE_CHECKING = False  # as in typing, which would be slow to import
if TYPE_CHECKING:
    from typing import Any


def homes_of(package: str, offered: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """{name: its module} of names by the module, below the package, that each is in."""
    return {name: f"{package}.{module}" for module, names in offered.items() for name in names}


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that offers its `__all__`, of which `homes` {name: its module, or itself
    for a subpackage} are imported when they are asked for."""

    def get(name: str) -> Any:
        if name not in homes:
            from affuse.config import nearest  # costs pydantic

            hint = "" if name.startswith("_") else nearest(name, names())
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}", name=name)
        module = import_module(homes[name])
        value = module if homes[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return get, names
