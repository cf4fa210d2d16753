"""A store: a folder of namespaces, one for each spec."""

from __future__ import annotations

import os
import re
from pathlib import Path

from featstore.errors import InputError, from_os_error
from featstore.spec import Spec
from featstore.store.checked import Checked
from featstore.store.commit import explained, fsync_folder, make_folder, probe, write_text
from featstore.store.namespace import Namespace, Opened
from featstore.store.rows import FORMAT_VERSION

_FORMAT_LINE = "featstore store, format {}\n"
_DERIVED = {"tmp", "scan", "ledger"}
"""What may be there before FORMAT is: private files and derived data, of which nothing is lost if they go."""

_MAX_SPEC_BYTES = 2**16


class Store:
    """A folder in which features are kept for ever. A missing folder is an empty store until something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Opened = {}

    @classmethod
    def open(cls, path: str | Path, create: bool = False) -> Store:
        """The store at ``path``; writes nothing unless ``create`` is true.

        Raises InputError if something else is there, or a store of a newer format; ReadOnlyError or StorageError if
        it cannot be read (or created).
        """
        store = cls(Path(os.path.abspath(Path(path).expanduser())))
        store._check_format()
        return store.create() if create else store

    @property
    def exists(self) -> bool:
        """True once the store has been written."""
        return (self.path / "FORMAT").exists()

    @property
    def scan_folder(self) -> Path:
        """Where what is known of scanned files is kept: derived data. It need not exist."""
        return self.path / "scan"

    @property
    def private_folder(self) -> Path:
        """Where files are written before they get their names."""
        return self.path / "tmp"

    def checked(self, fingerprint: str) -> Checked:
        """Which segments of a namespace were read in full lately."""
        return Checked(self.scan_folder / f"{fingerprint}.checked.json", self.private_folder)

    def create(self) -> Store:
        """Make the store if it is not there yet. Raises ReadOnlyError, NoSpaceError or StorageError."""
        make_folder(self.private_folder, self.path)
        if self._check_format():
            with explained("create a store", self.path):
                fsync_folder(self.path)  # whoever wrote FORMAT may have died before that
        else:
            write_text(_FORMAT_LINE.format(FORMAT_VERSION), self.path / "FORMAT", self.private_folder)
        return self

    def check_writable(self) -> None:
        """Make sure that rows could be written, before anything is computed, by writing (and removing) a small file.

        Creates the store if it is missing. Raises ReadOnlyError, NoSpaceError or StorageError.
        """
        self.create()
        probe(self.private_folder)

    def namespace(self, spec: Spec) -> Namespace:
        """The rows of ``spec``, whether there are any or not."""
        return Namespace(self, spec, self._opened)

    def namespaces(self) -> tuple[Namespace, ...]:
        """Every namespace whose spec this version can read, by fingerprint; ``verify`` tells of the others."""
        specs = (self.read_spec(fingerprint) for fingerprint in self.fingerprints())
        return tuple(self.namespace(spec) for spec in specs if spec is not None)

    def fingerprints(self) -> tuple[str, ...]:
        """The names of all namespace folders, in ascending order."""
        try:
            return tuple(sorted(e.name for e in os.scandir(self.path / "ns") if re.fullmatch("[0-9a-f]{64}", e.name)))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise from_os_error(error, "list the store", self.path) from error

    def read_spec(self, fingerprint: str) -> Spec | None:
        """The spec that the namespace ``fingerprint`` says it has; None if it says none that gives this fingerprint."""
        try:
            with open(self.path / "ns" / fingerprint / "spec.json", "rb") as file:
                spec = Spec.from_json(file.read(_MAX_SPEC_BYTES).decode("ascii"))
        except (InputError, UnicodeDecodeError, RecursionError):
            return None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise from_os_error(error, "read a spec", self.path / "ns" / fingerprint) from error
        return spec if spec.fingerprint == fingerprint else None

    def size(self) -> int:
        """Bytes of all files in the store, what is derived, private or in quarantine included."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                try:
                    total += os.lstat(os.path.join(folder, name)).st_size
                except FileNotFoundError:  # a private file that has just got its public name
                    continue
        return total

    def _check_format(self) -> bool:
        """True for a store of this format, False if there is nothing yet; InputError for anything else."""
        try:
            with open(self.path / "FORMAT", "rb") as file:
                line = file.read(256).decode("ascii", "replace")
        except FileNotFoundError:
            return self._check_vacant()
        except NotADirectoryError:
            line = "a file"
        except OSError as error:
            raise from_os_error(error, "read the store", self.path) from error
        number = re.fullmatch(r"featstore store, format ([0-9]{1,9})\n", line)
        if number is None:
            raise _foreign(self.path, line[:80].strip() or "an empty FORMAT file")
        if int(number[1]) != FORMAT_VERSION:
            raise InputError(
                f"this store has format {number[1]}, which this version of featstore does not know",
                where=self.path,
                expected=f"format {FORMAT_VERSION}",
                received=f"format {number[1]}",
                todo="extract again into another folder (--store), or use the version of featstore that wrote it",
            )
        return True

    def _check_vacant(self) -> bool:
        """False: without FORMAT nothing may be here but derived data, from a run that did not get further."""
        try:
            others = sorted({entry.name for entry in os.scandir(self.path)} - _DERIVED)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise _foreign(self.path, "a file") from None
        except OSError as error:
            raise from_os_error(error, "read the store", self.path) from error
        if "FORMAT" in others and self.exists:  # another process made the store just now
            return self._check_format()
        if others:
            raise _foreign(self.path, f"a folder with other things in it, such as {others[0]!r}")
        return False


def _foreign(path: Path, received: str) -> InputError:
    return InputError(
        "this is not a featstore store",
        where=path,
        expected="a store, an empty folder, or a folder that does not exist yet",
        received=received,
        todo="name another folder with --store or $FEATSTORE_HOME",
    )
