from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def private_cache(own_cache: None) -> None:
    """Bases that these tests train are no part of the user's cache."""
