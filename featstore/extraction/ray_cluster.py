"""Ray itself: whether it is here, which cluster it is on, and what its errors mean."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featstore.errors import InputError, StorageError

_REQUIREMENT = "ray[data]>=2.60,<2.64"
_NEEDED = ("ray", "pandas", "pyarrow")
_RAYS_OWN = ("auto", "local")
"""Addresses by Ray's own names: the cluster that runs on this machine already, and one of our own."""

_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "30"}
"""What holds unless it is set: nothing is sent home; the share of a run that was killed is free after these seconds."""

_PRINTS = "_worker_logs_enabled"
_CONNECT_SECONDS = 5.0
_STALLED_SECONDS = 3600.0
"""So long nothing may be done, the first start of the bases included."""


def check(address: str | None) -> None:
    """Raise InputError if Ray is not installed, or if nothing listens where its cluster is to be."""
    if not all(importlib.util.find_spec(name) for name in _NEEDED):
        raise _not_installed()
    named = _named(address)
    if named not in _RAYS_OWN:
        try:
            host, _, port = named.rpartition(":")
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()  # Ray would try for minutes
        except (OSError, ValueError) as error:
            raise _no_cluster(error, address) from error


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at ``address`` for as long as it takes; if it was before, it stays so.

    Raises InputError, as :func:`check` does, and if this process is connected to another cluster.
    """
    ray = _imported()
    if ray.is_initialized():
        _check_same(ray, address)
        yield ray
        return
    check(address)
    try:
        ray.init(address=_named(address), log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_cluster(error, address) from error
    with _stdout_left_alone():
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _stdout_left_alone() -> Iterator[None]:
    """Ray prints on stdout what happens to its workers, whatever it was told; but that is for the results of a run."""
    worker = importlib.import_module("ray._private.worker")
    before = getattr(worker, _PRINTS, True)
    setattr(worker, _PRINTS, False)
    try:
        yield
    finally:
        setattr(worker, _PRINTS, before)


@contextmanager
def translated(ray: Any) -> Iterator[None]:
    """Ray's errors as ours: StorageError if the cluster fails or stands still. A fault of ours stays what it is.

    Progress and errors are told by the run itself, and meanwhile not by Ray.
    """
    told = {"enable_progress_bars": False, "print_on_execution_start": False}
    wanted = {**told, "execution_no_progress_timeout_s": _STALLED_SECONDS}
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = {name: getattr(context, name) for name in wanted}, logger.level
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        logger.setLevel(logging.CRITICAL)
        yield
    except ray.exceptions.UserCodeException:
        raise
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        raise StorageError(
            f"the cluster did not go on ({type(error).__name__})",
            where="--engine ray",
            received=_essence(ray, error),
            todo="run the same command again: it goes on from the rows that were committed",
        ) from error
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


def _essence(ray: Any, error: Exception) -> str | None:
    """Of a message of many lines the one that says most: the last of a traceback, otherwise the first."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith((" ", "ray::"))]
    return lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0] if lines else None


def _named(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _imported() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise _not_installed() from error
    return ray


def _check_same(ray: Any, address: str | None) -> None:
    there = ray.get_runtime_context().gcs_address
    if address not in (None, "auto") and _resolved(address) != _resolved(there):
        raise InputError(
            "this process is connected to another Ray cluster",
            where=f"--address {address}",
            received=there,
            todo="leave the address out, or call ray.shutdown() before",
        )


def _resolved(address: str | None) -> tuple[str, str]:
    host, _, port = (address or "").rpartition(":")
    try:
        return socket.gethostbyname(host), port
    except OSError:
        return host, port


def _not_installed() -> InputError:
    return InputError(
        "this engine needs Ray, which is not installed",
        where="--engine ray",
        todo=f'pip install "{_REQUIREMENT}" (the extra "ray")',
    )


def _no_cluster(error: Exception, address: str | None) -> InputError:
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    from_environment = f"$RAY_ADDRESS ({_named(None)})" if os.environ.get("RAY_ADDRESS") else "--engine ray"
    return InputError(
        f"there is no Ray cluster: {first}",
        where=f"--address {address}" if address else from_environment,
        expected="HOST:PORT, as `ray start --head` tells it",
        todo="start one, or leave the address out: then Ray is started on this machine",
    )
