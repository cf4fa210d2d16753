from __future__ import annotations

from heads.service.limits import Shares


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
