"""A store: a folder of namespaces, one for each spec."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from featstore.cloud import Bucket, is_url, local_path
from featstore.errors import FeatstoreError, InputError, from_os_error
from featstore.folders import expanded
from featstore.progress import Progress, silent
from featstore.spec import Spec
from featstore.store.checked import Checked
from featstore.store.commit import explained, fsync_folder, leftovers
from featstore.store.mirror import Mirror
from featstore.store.namespace import Namespace, Opened
from featstore.store.place import Place
from featstore.store.rows import FORMAT_VERSION
from featstore.whole import is_unfinished, read_small

_FORMAT_LINE = "featstore store, format {}\n"
DERIVED = {"tmp", "scan", "ledger"}
"""What may be there before FORMAT is: private files and derived data, of which nothing is lost if they go."""

_MAX_FORMAT_BYTES = 2**8
_MAX_SPEC_BYTES = 2**16


class Store:
    """A place in which features are kept for ever. A missing one is an empty store until something is written.

    place : where its files go. progress : how it is shown that segments are fetched from elsewhere.
    """

    def __init__(self, place: Place, progress: Progress = silent) -> None:
        self.place = place
        self.progress = progress
        self._opened: Opened = {}

    def __reduce__(self) -> tuple[Callable[[str], Store], tuple[str]]:
        """Another process opens it again."""
        return Store.open, (self.location,)

    @classmethod
    def open(cls, path: str | Path, create: bool = False, progress: Progress = silent) -> Store:
        """The store at ``path``, a folder or the URL of a place on object storage; writes nothing there unless
        ``create`` is true.

        Raises InputError if something else is there, a store of a newer format, or one that leads elsewhere (see
        :meth:`check_folders`), or if such a place cannot be talked to; ReadOnlyError or StorageError if it cannot be
        read (or created).
        """
        store = cls(_place_at(local_path(os.fspath(path))), progress)
        store._check_format()
        store.check_folders()
        return store.create() if create else store

    @property
    def path(self) -> Path:
        """The folder of its files on this machine."""
        return self.place.root

    @property
    def location(self) -> str:
        """What people call it: a path or a URL, with which it can be opened again."""
        return self.place.location

    @property
    def exists(self) -> bool:
        """True once the store has been written."""
        return (self.path / "FORMAT").exists()

    @property
    def scan_folder(self) -> Path:
        """Where what is known of scanned files is kept: derived data. It need not exist."""
        return self.path / "scan"

    @property
    def ledger_folder(self) -> Path:
        """Where rejected images are listed: derived data. It need not exist."""
        return self.path / "ledger"

    @property
    def private_folder(self) -> Path:
        """Where files are written before they get their names."""
        return self.place.private

    def checked(self, fingerprint: str) -> Checked:
        """Which segments of a namespace were read in full lately."""
        return Checked(self.scan_folder / f"{fingerprint}.checked.json", self.private_folder)

    def create(self) -> Store:
        """Make the store if it is not there yet. Raises InputError, ReadOnlyError, NoSpaceError or StorageError."""
        self.check_folders()
        self.place.make_folder(self.private_folder)
        if self._check_format():
            with explained("create a store", self.path):
                fsync_folder(self.path)  # whoever wrote FORMAT may have died before that
        else:
            self.place.write_text(_FORMAT_LINE.format(FORMAT_VERSION), self.path / "FORMAT")
        return self

    def check_writable(self) -> None:
        """Make sure that rows could be written, before anything is computed, by writing (and removing) a small file.

        Creates the store if it is missing. Raises InputError, ReadOnlyError, NoSpaceError or StorageError.
        """
        self.create()
        self.place.probe()

    def check_folders(self) -> None:
        """Make sure that no folder of the store is a link: files are removed there, and must not be somebody's.

        The store's own folder may be one. Raises InputError, ReadOnlyError or StorageError.
        """
        folders = [self.path / name for name in (*sorted(DERIVED), "ns")]
        for fingerprint in self.fingerprints():
            space = self.path / "ns" / fingerprint
            folders += space, space / "seg", space / "quarantine"
        for folder in folders:
            if folder.is_symlink():
                raise InputError(
                    "a folder of this store is a link",
                    where=folder,
                    expected="a folder, so that nothing outside of the store is ever changed or removed",
                    received=f"a link to {os.readlink(folder)}",
                    todo="remove the link, and move the folder it leads to into its place if that is the store's own",
                )

    def namespace(self, spec: Spec) -> Namespace:
        """The rows of ``spec``, whether there are any or not."""
        return Namespace(self, spec, self._opened)

    def namespaces(self) -> tuple[Namespace, ...]:
        """Every namespace whose spec this version can read, by fingerprint; ``verify`` tells of the others."""
        specs = (self.read_spec(one) or self.spec_of_segments(one) for one in self.fingerprints())
        return tuple(self.namespace(spec) for spec in specs if spec is not None)

    def fingerprints(self) -> tuple[str, ...]:
        """The names of all namespace folders, in ascending order."""
        return tuple(path.name for path in self.place.list(self.path / "ns") if re.fullmatch("[0-9a-f]{64}", path.name))

    def read_spec(self, fingerprint: str) -> Spec | None:
        """The spec that the namespace ``fingerprint`` says it has; None if it says none that gives this fingerprint."""
        file = self.path / "ns" / fingerprint / "spec.json"
        self.place.fetch([file])
        try:
            text = read_small(file, _MAX_SPEC_BYTES)
            spec = Spec.from_json(text.decode("ascii"))
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        except OSError as error:
            raise from_os_error(error, "read a spec", self.path / "ns" / fingerprint) from error
        return spec if spec.fingerprint == fingerprint else None

    def spec_of_segments(self, fingerprint: str) -> Spec | None:
        """The spec by what is in the segments of the namespace, should its own file be lost; None if none says it."""
        from featstore.store.segment import spec_within

        for path in self.place.list(self.path / "ns" / fingerprint / "seg"):
            self.place.fetch([path])
            if spec := spec_within(path, fingerprint):
                return spec
        return None

    def quarantined(self) -> list[Path]:
        """The damaged segments that were set aside, whatever they are. Raises ReadOnlyError or StorageError."""
        folders = [self.path / "ns" / name / "quarantine" for name in self.fingerprints()]
        return [path for folder in folders for path in self.place.list(folder)]

    def leftovers(self) -> list[Path]:
        """The files that killed processes left unfinished a day ago or earlier. Never raises."""
        derived = (leftovers(folder, is_unfinished) for folder in (self.scan_folder, self.ledger_folder))
        return [*leftovers(self.private_folder), *(file for files in derived for file in files)]

    def size(self) -> int:
        """Bytes of all files in the store, what is derived, private or in quarantine included."""
        return self.place.size()

    def _check_format(self) -> bool:
        """True for a store of this format, False if there is nothing yet; InputError for anything else."""
        self.place.refresh()
        try:
            line = read_small(self.path / "FORMAT", _MAX_FORMAT_BYTES).decode("ascii", "replace")
        except ValueError as error:
            raise _foreign(self.location, f"its file FORMAT: {error}") from error
        except FileNotFoundError:
            return self._check_vacant()
        except NotADirectoryError:
            line = "a file"
        except OSError as error:
            raise from_os_error(error, "read the store", self.path) from error
        number = re.fullmatch(r"featstore store, format ([0-9]{1,9})\n", line)
        if number is None:
            raise _foreign(self.location, line[:80].strip() or "an empty FORMAT file")
        if int(number[1]) != FORMAT_VERSION:
            raise InputError(
                f"this store has format {number[1]}, which this version of featstore does not know",
                where=self.location,
                expected=f"format {FORMAT_VERSION}",
                received=f"format {number[1]}",
                todo="extract again into another folder (--store), or use the version of featstore that wrote it",
            )
        return True

    def _check_vacant(self) -> bool:
        """False: without FORMAT nothing may be here but derived data, from a run that did not get further."""
        try:
            others = sorted(self.place.names() - DERIVED)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise _foreign(self.location, "a file") from None
        except FeatstoreError:
            raise
        except OSError as error:
            raise from_os_error(error, "read the store", self.path) from error
        if "FORMAT" in others:  # another process made the store just now
            self.place.refresh()
            if self.exists:
                return self._check_format()
        if others:
            raise self._unnamed(others)
        return False

    def _unnamed(self, others: Sequence[str]) -> InputError:
        """What to say of a place that has no FORMAT, but ``others``: it may be a store that has lost it."""
        foreign = _foreign(self.location, f"a folder with other things in it, such as {others[0]!r}")
        if self.fingerprints():
            foreign.received = "the rows of a store, but not its file FORMAT"
            line = _FORMAT_LINE.format(FORMAT_VERSION).strip()
            foreign.todo = f"if it was lost, write it again, and check the store: echo {line!r} > FORMAT"
        return foreign


def _place_at(path: str) -> Place:
    return Mirror(Bucket.at(path)) if is_url(path) else Place(Path(os.path.abspath(expanded(path))))


def _foreign(where: str, received: str) -> InputError:
    return InputError(
        "this is not a featstore store",
        where=where,
        expected="a store, an empty folder, or a folder that does not exist yet",
        received=received,
        todo="name another folder with --store or $FEATSTORE_HOME",
    )
