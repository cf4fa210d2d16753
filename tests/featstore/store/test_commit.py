from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from featstore.errors import FeatstoreError, InputError, NoSpaceError, ReadOnlyError, StorageError
from featstore.spec import Spec
from featstore.store import Store, commit, verify, writer
from featstore.store.commit import leftovers, make_folder, probe, remove, sweep, write_text

DATA = b"some bytes of a segment"
NAME = blake3(DATA).hexdigest()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder for public names and a private one."""
    public, private = tmp_path / "seg", tmp_path / "tmp"
    public.mkdir()
    private.mkdir()
    return public, private


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, its clean-up included."""


class Disk:
    """Counts the system calls that change a disk, and lets the one numbered ``at`` fail, or the process die in it.

    A dying write leaves half its bytes behind.
    """

    CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "mkdir")

    def __init__(self, patch: pytest.MonkeyPatch, at: int = -1, failure: int | None = None) -> None:
        self.count = 0
        self.at, self.failure = at, failure
        for name in self.CALLS:
            patch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count - 1 == self.at and self.failure is not None:
                raise OSError(self.failure, os.strerror(self.failure))
            if self.count > self.at >= 0 and self.failure is None:
                if name == "write" and self.count - 1 == self.at:
                    real(args[0], args[1][: len(args[1]) // 2])
                raise Killed
            return real(*args, **options)

        return call


def test_a_file_is_named_after_its_content(folders: tuple[Path, Path]) -> None:
    public, private = folders
    assert commit.commit(DATA, public, private) == NAME
    assert (public / f"{NAME}.h5").read_bytes() == DATA
    assert list(private.iterdir()) == []


def test_a_link_in_the_place_of_a_segment_is_replaced(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Even if the content behind it is right: no reader follows it."""
    public, private = folders
    (tmp_path / "elsewhere").write_bytes(DATA)
    (public / f"{NAME}.h5").symlink_to(tmp_path / "elsewhere")
    commit.commit(DATA, public, private)
    assert not (public / f"{NAME}.h5").is_symlink()
    assert (public / f"{NAME}.h5").read_bytes() == DATA


def test_others_may_read_what_the_umask_lets_them(folders: tuple[Path, Path]) -> None:
    old = os.umask(0o022)
    try:
        commit.commit(DATA, *folders)
    finally:
        os.umask(old)
    assert stat.S_IMODE((folders[0] / f"{NAME}.h5").stat().st_mode) == 0o644


def test_the_name_appears_only_after_the_bytes_are_on_the_disk(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    for name in ("write", "fsync", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real: (order.append(_name), _real(*a))[1])
    commit.commit(DATA, *folders)
    assert order == ["write", "fsync", "link", "fsync"]  # the last is the folder's


def test_a_good_file_of_that_name_is_kept(folders: tuple[Path, Path]) -> None:
    commit.commit(DATA, *folders)
    before = (folders[0] / f"{NAME}.h5").stat()
    commit.commit(DATA, *folders)
    after = (folders[0] / f"{NAME}.h5").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("content", [b"", DATA[:-1], b"X" + DATA[1:]])
def test_a_damaged_file_of_that_name_is_replaced(folders: tuple[Path, Path], content: bytes) -> None:
    target = folders[0] / f"{NAME}.h5"
    target.write_bytes(content)
    commit.commit(DATA, *folders)
    assert target.read_bytes() == DATA


def test_a_pipe_of_that_name_does_not_make_us_wait(folders: tuple[Path, Path]) -> None:
    os.mkfifo(folders[0] / f"{NAME}.h5")
    commit.commit(DATA, *folders)
    assert (folders[0] / f"{NAME}.h5").read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links_gets_a_rename(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    commit.commit(DATA, *folders)
    assert (folders[0] / f"{NAME}.h5").read_bytes() == DATA
    assert list(folders[1].iterdir()) == []


def test_a_short_write_is_continued(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:5]))
    commit.commit(DATA, *folders)
    assert (folders[0] / f"{NAME}.h5").read_bytes() == DATA


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EROFS, ReadOnlyError),
        (errno.EFBIG, StorageError),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "link", "open"])
def test_a_failure_is_typed_and_leaves_nothing_behind(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[FeatstoreError]
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(kind):
            commit.commit(DATA, *folders)
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_after_one_failed_fsync_a_new_file_is_tried_once(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = [], os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        if len(synced) == 1:
            raise OSError(errno.EIO, "once")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    commit.commit(DATA, *folders)
    assert len(set(synced)) == 3  # two private files and the folder: never the same file again


@pytest.mark.parametrize("call", ["link", "replace"])
def test_a_private_file_that_a_writer_with_another_clock_has_swept_is_written_again(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, used = getattr(os, call), []

    def late(source: Path, target: Path) -> None:
        used.append(source)
        if len(used) == 1:
            source.unlink()
        real(source, target)

    monkeypatch.setattr(os, call, late)
    if call == "link":
        assert commit.commit(DATA, *folders) == NAME
    else:
        write_text(DATA.decode(), folders[0] / f"{NAME}.h5", folders[1])
    assert (folders[0] / f"{NAME}.h5").read_bytes() == DATA
    assert len(set(used)) == 2
    assert list(folders[1].iterdir()) == []


def test_a_full_disk_is_not_tried_twice(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def write(handle: int, _: Any) -> int:
        tried.append(handle)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(NoSpaceError):
        commit.commit(DATA, *folders)
    assert len(tried) == 1


def test_a_private_file_of_someone_else_is_never_written_over(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = folders[1] / f"{os.getpid()}-00"
    theirs.write_bytes(b"theirs")
    monkeypatch.setattr(commit.secrets, "token_hex", lambda _: "00")
    with pytest.raises(InputError):
        commit.commit(DATA, *folders)
    assert theirs.read_bytes() == b"theirs"


def test_after_two_failures_it_gives_up(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "always")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError):
        commit.commit(DATA, *folders)
    assert list(folders[1].iterdir()) == []


def test_a_file_system_that_cannot_fsync_folders_is_good_enough(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not for folders")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert commit.commit(DATA, *folders) == NAME


def test_text_is_replaced_whole(folders: tuple[Path, Path]) -> None:
    target = folders[0] / "FORMAT"
    write_text("old", target, folders[1])
    write_text("new", target, folders[1])
    assert target.read_text() == "new"
    assert list(folders[1].iterdir()) == []


def test_every_folder_on_the_way_is_forced_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(commit, "fsync_folder", lambda folder: synced.append(folder.name))
    make_folder(tmp_path / "store" / "ns" / "f", tmp_path / "store")
    assert synced == [tmp_path.name, "store", "ns"]
    assert (tmp_path / "store" / "ns" / "f").is_dir()


def test_probing_leaves_nothing(folders: tuple[Path, Path]) -> None:
    probe(folders[1])
    assert list(folders[1].iterdir()) == []


def test_only_old_leftovers_are_swept(folders: tuple[Path, Path]) -> None:
    old, new, folder = (folders[1] / name for name in ("old", "new", "folder"))
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    folder.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    os.utime(folder, (time.time() - 90_000,) * 2)
    (folders[1] / "link").symlink_to(old)
    assert leftovers(folders[1], str.isupper) == []
    sweep(leftovers(folders[1]))
    assert sorted(p.name for p in folders[1].iterdir()) == ["folder", "link", "new"]


def test_sweeping_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert leftovers(tmp_path / "nothing") == []
    sweep([tmp_path / "nothing"])


def test_what_is_removed_may_be_a_folder_or_gone_and_a_link_leads_nowhere(folders: tuple[Path, Path]) -> None:
    folder, link, kept = folders[0] / "folder", folders[0] / "link", folders[1] / "kept"
    (folder / "inner").mkdir(parents=True)
    for link_at in (link, folder / "link"):
        link_at.symlink_to(folders[1])
    for file in (kept, folder / "inner" / "file"):
        file.write_bytes(b"x")
    remove([folder, link, folders[0] / "gone"], folders[0])
    assert list(folders[0].iterdir()) == []
    assert kept.exists()


def test_a_device_under_a_segments_name_is_not_read(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders[0] / f"{NAME}.h5").symlink_to("/dev/zero")
    monkeypatch.setattr(commit, "name_of_file", lambda _: pytest.fail("this would go on for ever"))
    commit.commit(DATA, *folders)
    assert (folders[0] / f"{NAME}.h5").read_bytes() == DATA


ROWS = 6


def run(path: Path, spec: Spec) -> tuple[int, BaseException | None]:
    """Write six rows two at a time, as one process would; how many were reported, and what ended it."""
    batch = None
    try:
        with Store.open(path).namespace(spec).writer({}) as batch:
            for i in range(ROWS):
                batch.add(bytes([i]) * 32, 0, np.full(3, i, np.float32))
    except (FeatstoreError, Killed) as error:
        return batch.committed if batch else 0, error
    return batch.committed, None


def states(tmp_path: Path, spec: Spec, patch: pytest.MonkeyPatch, failure: int | None) -> Iterator[tuple[Path, int]]:
    """A store for every system call of :func:`run`, in which that call failed, and the rows reported until then."""
    with patch.context() as counting:
        disk = Disk(counting)
        run(tmp_path / "whole", spec)
    assert disk.count > 40
    for at in range(disk.count):
        path = tmp_path / f"{at}"
        with patch.context() as failing:
            Disk(failing, at, failure)
            reported, _ = run(path, spec)
        yield path, reported


@pytest.mark.parametrize("failure", [None, errno.EIO, errno.ENOSPC], ids=["killed", "EIO", "ENOSPC"])
def test_wherever_a_run_dies_no_reported_row_is_lost_and_the_next_run_completes_it(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, failure: int | None
) -> None:
    monkeypatch.setattr(writer, "ROWS_PER_COMMIT", 2)
    digests = np.arange(ROWS, dtype=np.uint8).repeat(32).reshape(ROWS, 32)
    for path, reported in states(tmp_path, spec, monkeypatch, failure):
        store = Store.open(path)
        snapshot = store.namespace(spec).snapshot()
        assert verify(store, read_data=True).sound
        assert (snapshot.lookup(digests[:reported]) == 0).all()
        assert (snapshot.read(digests[:reported])[:, :1] == digests[:reported, :1]).all()
        assert run(path, spec) == (ROWS, None)
        assert (Store.open(path).namespace(spec).snapshot().read(digests)[:, 0] == np.arange(ROWS)).all()
        if failure is not None:  # the call that failed may have been the one that tidies up
            assert len(list((path / "tmp").iterdir())) <= 1
