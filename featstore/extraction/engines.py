"""The engines by name."""

from __future__ import annotations

from featstore import machine
from featstore.errors import InputError, unknown_name
from featstore.extraction import local, on_devices
from featstore.extraction.engine import Engine

_ENGINES = ("local", "ray")


def engine_named(name: str = "local", address: str | None = None, devices: str | None = None) -> Engine:
    """The engine called ``name``; ``address`` is that of a cluster, ``devices`` are the GPUs of this machine to share
    the work out to: "all", how many, or a list.

    Raises InputError; for a cluster also if what it takes is not installed, or nothing listens there.
    """
    if name not in _ENGINES:
        raise unknown_name("engine", name, _ENGINES, "--engine")
    if name == "local":
        if address is not None:
            raise InputError("a cluster is for another engine", where=f"--address {address}", todo="add --engine ray")
        if devices is not None:
            return on_devices.engine_on([f"gpu:{number}" for number in machine.gpus_named(devices)])
        return local.compute
    if devices is not None:
        raise InputError(
            "a cluster has the GPUs that its nodes offer",
            where=f"--devices {devices}",
            todo="leave the option out, or --engine ray",
        )
    from featstore.extraction import on_ray

    return on_ray.engine_at(address)
