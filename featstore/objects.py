"""What fsspec's file systems tell of objects: the pages of a listing, and what is known of each object in one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featstore.records import Stamp

PAGE = 1000
"""Objects that storage names at most in the answer to one request (S3 and GCS)."""

_STAMP_TIMES = ("LastModified", "mtime", "last_modified", "updated", "created")
_STAMP_TAGS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "ino")


def pages(system: Any, place: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    """What lies right below a place. Of S3 a page at a time: s3fs would hold a kilobyte an object until the last."""
    if "s3" not in system.protocol:
        yield system.ls(place, detail=True)
        return
    bucket, folder, _ = system.split_path(place)
    asked = {"Bucket": bucket, "Prefix": f"{folder}/" if folder else "", "Delimiter": "/"}
    while True:
        page = system.call_s3("list_objects_v2", **asked)
        folders = ({"name": f"{bucket}/{one['Prefix']}", "type": "directory"} for one in page.get("CommonPrefixes", ()))
        files = (
            {**one, "name": f"{bucket}/{one['Key']}", "type": "file", "size": one["Size"]}
            for one in page.get("Contents", ())
        )
        yield [*folders, *files]
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def below(place: str, found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Stamp | None]]:
    """What of a page is right below a place: objects by their names with their stamps, folders with None."""
    prefix = place.strip("/") + "/"
    for about in found:
        whole = about["name"].lstrip("/")
        name, is_file = whole.removeprefix(prefix), about["type"] == "file"
        inner = name.rstrip("/")
        if not whole.startswith(prefix) or "/" in inner or (not name and not (is_file and about["size"])):
            continue  # of another place; the place itself, or the empty object that stands for it
        if not inner or (is_file and inner != name):
            yield "", None
        else:
            yield inner, stamp_of(about) if is_file else None


def stamp_of(about: Mapping[str, Any]) -> Stamp:
    """Size, time and, in the place of an inode, what the storage calls this content: another content has another."""
    time = next((about[name] for name in _STAMP_TIMES if about.get(name) is not None), 0)
    tag = next((str(about[name]) for name in _STAMP_TAGS if about.get(name) is not None), "")
    number = int.from_bytes(hashlib.blake2b(tag.encode(), digest_size=8).digest())
    changed = _nanoseconds(time)
    if tag:
        changed -= changed % 10**9  # some storages list milliseconds, and say seconds of one object
    return Stamp(int(about["size"]), changed, changed, number)


def _nanoseconds(time: Any) -> int:
    if isinstance(time, str):
        from datetime import datetime

        time = datetime.fromisoformat(time)
    return int((time.timestamp() if hasattr(time, "timestamp") else float(time)) * 1e9)
