"""The engines by name."""

from __future__ import annotations

from featstore.errors import InputError, unknown_name
from featstore.extraction import local
from featstore.extraction.engine import Engine

_ENGINES = ("local", "ray")


def engine_named(name: str = "local", address: str | None = None) -> Engine:
    """The engine called ``name``; ``address`` is that of a cluster.

    Raises InputError; for a cluster also if what it takes is not installed, or nothing listens there.
    """
    if name not in _ENGINES:
        raise unknown_name("engine", name, _ENGINES, "--engine")
    if name == "local":
        if address is not None:
            raise InputError("a cluster is for another engine", where=f"--address {address}", todo="add --engine ray")
        return local.compute
    from featstore.extraction import on_ray

    return on_ray.engine_at(address)
