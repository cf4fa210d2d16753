"""docs/FORMAT.md, held to what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from featstore.records import Reason
from featstore.store import FORMAT_VERSION, Namespace, Store
from featstore.store.compact import SEGMENT_BYTES
from featstore.store.rows import (
    BYTES_PER_COMMIT,
    MAX_ATTRIBUTE_BYTES,
    MAX_ROW_BYTES,
    MAX_SEGMENT_BYTES,
    ROWS_PER_COMMIT,
    SECONDS_PER_COMMIT,
)
from featstore.store.structure import MAX_UNPACKED_BYTES

DOCUMENT = (Path(__file__).parents[3] / "docs" / "FORMAT.md").read_text()


def test_the_program_that_reads_a_store_without_featstore_does(
    store: Store, namespace: Namespace, make_rows: Any, write: Any
) -> None:
    rows = make_rows(20, rejects=[3])
    write(namespace, rows)
    [program] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    found: dict[str, Any] = {}
    exec(program.replace("STORE", str(store.path)), found)
    good = rows.status == 0
    assert (found["digests"] == rows.digests[good]).all()
    assert (found["features"] == rows.features[good]).all()


def test_it_lists_every_reason_under_its_number() -> None:
    [numbers, names] = re.search(r"\n\| (1 \|[^\n]*) \|\n\|[-|]+\|\n\| ([^\n]*) \|\n", DOCUMENT).groups()  # type: ignore[union-attr] # no table: a failed test
    stored = [reason for reason in Reason if reason not in (Reason.OK, Reason.UNREADABLE)]
    assert numbers.split(" | ") == [str(int(reason)) for reason in stored]
    assert names.split(" | ") == [reason.code for reason in stored]


def test_it_gives_the_numbers_of_the_code() -> None:
    assert f"The store, format {FORMAT_VERSION}\n" in DOCUMENT
    batch = f"complete at {ROWS_PER_COMMIT} rows, at {BYTES_PER_COMMIT >> 20} MiB of features"
    assert batch in DOCUMENT
    assert f"arrives {SECONDS_PER_COMMIT:.0f} seconds or more" in DOCUMENT
    assert f"in groups of at most {SEGMENT_BYTES >> 20} MiB" in DOCUMENT
    row, attribute = f"{MAX_ROW_BYTES >> 20} MiB", f"{MAX_ATTRIBUTE_BYTES >> 10} KiB"
    features = f"{BYTES_PER_COMMIT >> 20} MiB, or one row | {SEGMENT_BYTES >> 20} MiB, or one row"
    for line in (
        f"| rows | {ROWS_PER_COMMIT} | as many as fit | as many as fit |",
        f"included | {features} | {MAX_UNPACKED_BYTES >> 20} MiB if compressed |",
        f"| one row of it | {row} | {row} | {row} |",
        f"| the file | follows | follows | {MAX_SEGMENT_BYTES >> 30} GiB |",
        f"| an attribute | {attribute} | {attribute} | {attribute} |",
    ):
        assert line in DOCUMENT


def test_the_folders_it_names_are_those_a_store_has(
    store: Store, namespace: Namespace, segment_path: Path, set_aside: Any
) -> None:
    set_aside(namespace, segment_path)
    [tree] = re.findall(r"```\n(STORE/.*?)```", DOCUMENT, re.DOTALL)
    for entry in store.path.rglob("*"):
        relative = str(entry.relative_to(store.path)).replace(namespace.fingerprint, "<fingerprint>")
        assert (
            f"STORE/{re.sub('[0-9a-f]{64}', '<blake3>', relative)}".replace("quarantine/<blake3>.h5", "quarantine")
            in tree
        )
