from __future__ import annotations

import pytest

from featstore import online
from heads.service import bodies, guard, heads, run
from heads.service.limits import Limits, Shares, asker_at
from heads.service.routes import asking


def test_one_address_has_at_most_half_and_all_have_no_more_than_there_is() -> None:
    shares = Shares(8)
    assert shares.take("one", 4)
    assert not shares.take("one")
    assert shares.take("other", 3)
    assert not shares.take("third", 2)
    assert shares.take("third")
    assert not shares.take("fourth")
    assert [shares.of(address) for address in ("one", "other", "third", "fourth")] == [4, 3, 1, 0]


def test_what_is_given_back_can_be_had_again() -> None:
    shares = Shares(2)
    assert shares.take(None)
    assert not shares.fits(None)
    shares.give_back(None)
    assert shares.take(None)


def test_the_limits_are_those_that_are_written_down() -> None:
    assert Limits() == Limits(16 * 2**10, 16 * 2**20, 256 * 2**20, 20.0, 4096.0, 64)
    assert (run.HEADER_SECONDS, run.WRITE_SECONDS) == (5.0, 20.0)
    assert (guard._STALL_SECONDS, guard._GRACE_SECONDS) == (5.0, 2.0)
    assert (asking._ANSWER_SECONDS, bodies.MAX_PICTURES, heads._DECODERS) == (30.0, 64, 4)
    assert (online.MAX_WAIT_SECONDS, online.MAX_WAITING, online.MAX_WAITING_OF_ONE) == (0.005, 256, 128)


@pytest.mark.parametrize(
    ("host", "asker"),
    [
        (None, None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("a:strange:name", "a:strange:name"),
    ],
)
def test_a_machine_that_has_a_whole_network_asks_in_one_name(host: str | None, asker: str | None) -> None:
    assert asker_at(host) == asker
