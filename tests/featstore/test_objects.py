"""What is told of objects in a listing."""

from __future__ import annotations

from featstore.objects import stamp_of


def test_a_time_in_milliseconds_and_one_in_seconds_are_one_where_the_content_has_a_tag() -> None:
    listed = {"size": 1, "LastModified": "2026-01-01T00:00:00.123+00:00", "ETag": "x"}
    assert stamp_of(listed) == stamp_of({**listed, "LastModified": "2026-01-01T00:00:00+00:00"})
    assert stamp_of(listed) != stamp_of({**listed, "ETag": "y"})
    untagged = {"size": 1, "created": 5.25}
    assert stamp_of(untagged) != stamp_of({**untagged, "created": 5.5})
