"""What a disk may hold after a crash: a recorded run, replayed up to any point.

``record`` runs a shell command under strace and reads off every system call that changed files under a folder, in the
order in which the calls returned. ``Disk`` carries them out on paper, in two copies: what a process would read, and
what is on the disk for certain. After a kill the first is there. After a power cut any subset of what was not forced
to the disk may be missing: bytes written to a file since its last fsync, and names made or removed in a folder since
the last fsync of that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

_CALLS = (
    "openat,write,pwrite64,writev,lseek,ftruncate,fsync,fdatasync,"
    "link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,flock,fcntl"
)
_ON_HANDLES = ("write", "pwrite64", "writev", "lseek", "ftruncate", "fsync", "fdatasync", "flock", "fcntl")
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(r"^(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that changed something: ``name``, the paths it is about, the bytes written and where, and which
    thread did it.
    """

    name: str
    paths: tuple[str, ...]
    data: bytes = b""
    at: int = 0
    process: str = ""


def record(command: str, folder: Path, env: dict[str, str], also: Path) -> list[Call]:
    """Run ``command`` in a shell under strace; its calls on paths under ``folder``, and the writes to ``also``."""
    trace = folder.parent / f"{folder.name}.strace"
    words = ["strace", "-f", "-y", "-xx", "-s", "10000000", "--seccomp-bpf", "-e", f"trace={_CALLS}", "-o", trace]
    done = subprocess.run(
        [*map(str, words), "sh", "-ec", command], capture_output=True, text=True, check=False, env=env
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    with trace.open() as lines:
        calls = list(_calls(lines, str(folder), str(also)))
    trace.unlink()
    return calls


def _calls(lines: Iterator[str], folder: str, also: str) -> Iterator[Call]:
    started: dict[str, str] = {}
    places: dict[str, int] = {}
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if match is None:  # a signal, or the end of a process
            continue
        process, resumed, name, rest = match[1], match[2], match[3], match[4]
        if rest.endswith("<unfinished ...>"):
            started[process] = f"{name}({rest.removesuffix('<unfinished ...>')}"
            continue
        whole = started.pop(process) + rest if resumed else f"{name}({rest}"
        name, _, rest = whole.partition("(")
        arguments, _, result = rest.rpartition(" = ")
        if result.startswith(("-", "?")):
            continue
        for call in _call(name, arguments.strip().removesuffix(")"), result, places, folder, also):
            yield replace(call, process=process)


def _call(name: str, arguments: str, result: str, places: dict[str, int], folder: str, also: str) -> Iterator[Call]:
    handle = _HANDLE.match(arguments)
    on = _text(handle[1]) if handle else ""
    texts = [_text(found) for found in _STRING.findall(arguments)]
    if name in _ON_HANDLES:
        if not _under(on, folder) and on != also:
            return
        if name == "lseek":
            places[on] = int(result.split()[0])
        elif name in ("flock", "fcntl"):
            if name == "flock" or "LK" in arguments:
                raise AssertionError(f"a lock was asked for: {on}")
        elif name == "ftruncate":
            raise AssertionError(f"a file was cut: {on}")
        elif name in ("fsync", "fdatasync"):
            yield Call("fsync", (on,))
        else:
            if name == "writev":
                raise AssertionError("writev is not modelled")
            data = bytes.fromhex("".join(_STRING.findall(arguments)).replace("\\x", ""))[: int(result)]
            at = int(arguments.rpartition(", ")[2]) if name == "pwrite64" else places.get(on, 0)
            if name == "write":
                places[on] = at + len(data)
            yield Call("report" if on == also else "write", (on,), data, at)
        return
    paths = tuple(os.path.normpath(text if os.path.isabs(text) else os.path.join(on, text)) for text in texts)
    if not any(_under(path, folder) for path in paths):
        return
    if name == "openat":
        if "O_CREAT" in arguments:
            places[paths[0]] = 0
            yield Call("create", paths)
    else:
        yield Call(name.removesuffix("2").removesuffix("at"), paths)


def _under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _text(escaped: str) -> str:
    return os.fsdecode(bytes.fromhex(escaped.replace("\\x", "")))


@dataclass(slots=True)
class _File:
    """A file's content: as a process reads it, and as it was at its last fsync; and the writes since."""

    content: bytes = b""
    forced: bytes = b""
    since: list[tuple[int, bytes]] = field(default_factory=list)


def _written(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at].ljust(at, b"\0") + data + content[at + len(data) :]


class Disk:
    """Files and folders after some of the calls; at first ``folder`` is there, and empty."""

    def __init__(self, folder: Path) -> None:
        self._root = str(folder)
        self.names: dict[str, _File | None] = {self._root: None}  # None: a folder
        self._forced: dict[str, _File | None] = {self._root: None}
        self._pending: list[tuple[str, str, _File | None]] = []  # "put" or "drop", path, what

    def apply(self, call: Call) -> None:
        """Carry out one call."""
        path = call.paths[0]
        if call.name == "create":
            if path not in self.names:
                self._put(path, _File())
        elif call.name == "write":
            file = self._file(path)
            if file is not None:
                file.content = _written(file.content, call.at, call.data)
                file.since.append((call.at, call.data))
        elif call.name == "fsync":
            self._force(path)
        elif call.name == "mkdir":
            self._put(path, None)
        elif call.name == "link":
            self._put(call.paths[1], self.names[path])
        elif call.name == "rename":
            what = self.names[path]
            self._drop(path)
            self._put(call.paths[1], what)
        elif call.name in ("unlink", "rmdir"):
            self._drop(path)
        elif call.name != "report":
            raise AssertionError(f"{call.name} is not modelled")

    def _file(self, path: str) -> _File | None:
        return self.names.get(path)

    def _put(self, path: str, what: _File | None) -> None:
        self.names[path] = what
        self._pending.append(("put", path, what))

    def _drop(self, path: str) -> None:
        del self.names[path]
        self._pending.append(("drop", path, None))

    def _force(self, path: str) -> None:
        file = self.names.get(path)
        if file is not None:
            file.forced, file.since = file.content, []
            return
        staying = []
        for change in self._pending:
            if os.path.dirname(change[1]) == path:
                _carry_out(change, self._forced)
            else:
                staying.append(change)
        self._pending = staying

    def after_a_kill(self) -> dict[str, bytes | None]:
        """Path → content (None: a folder), as the next process finds them."""
        return {path: None if what is None else what.content for path, what in self.names.items()}

    def after_a_power_cut(self, random: Random, keep: float | None = None) -> dict[str, bytes | None]:
        """The same, where any part of what was not forced to the disk is missing.

        keep : how likely a change is still there, 0 to 1; None: any likelihood.
        """
        if keep is None:
            keep = random.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        names = dict(self._forced)
        for change in self._pending:
            if random.random() < keep:
                _carry_out(change, names)
        contents: dict[int, bytes] = {}
        found: dict[str, bytes | None] = {}
        for path, what in sorted(names.items()):
            parent = os.path.dirname(path)
            if path != self._root and (parent not in names or found.get(parent, b"") is not None):
                continue  # the folder it was in is not there
            if what is None:
                found[path] = None
                continue
            if id(what) not in contents:
                content = what.forced
                for at, data in what.since:
                    if random.random() < keep:
                        content = _written(content, at, data[: random.randint(0, len(data))])
                contents[id(what)] = content
            found[path] = contents[id(what)]
        return found


def _carry_out(change: tuple[str, str, _File | None], names: dict[str, _File | None]) -> None:
    kind, path, what = change
    if kind == "put":
        names[path] = what
    else:
        names.pop(path, None)


def lay_out(state: dict[str, bytes | None], recorded: Path, place: Path, pool: dict[bytes, Path]) -> Path:
    """Make the files of ``state`` (paths under ``recorded``) under ``place``, by links to what is in ``pool``."""
    shutil.rmtree(place, ignore_errors=True)
    for path, content in sorted(state.items()):
        target = place / os.path.relpath(path, recorded)
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        elif target.parent.is_dir():
            if content not in pool:
                pool[content] = place.with_name(f"{place.name}.pool-{len(pool)}")
                pool[content].write_bytes(content)
            os.link(pool[content], target)
    return place
