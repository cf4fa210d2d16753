"""A live training killed through the command line goes on and ends with the weights of one that was not."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.commands import finish, spawn, start
from tests.pictures import class_folders
from tests.reliability.campaign import takes_long


@takes_long
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, shared_cache: Path) -> None:
    photos = class_folders(tmp_path / "photos")
    words = (
        "live",
        photos,
        "--weights",
        "random:0",
        "--image-size",
        "32",
        "--precision",
        "float32",
        "--batch-size",
        "8",
    )
    words = (*words, "--epochs", "4", "--tuning-epochs", "12", "--json", "--out")
    env = {"XDG_CACHE_HOME": shared_cache}
    whole = spawn(*words, tmp_path / "whole", env=env)
    assert whole.code == 0, whole.err

    killed = start(*words, tmp_path / "killed", env=env)
    checkpoints, deadline = tmp_path / "killed" / "checkpoints", time.monotonic() + 300
    while killed.poll() is None and time.monotonic() < deadline and not list(checkpoints.glob("[!.]*.npz")):
        time.sleep(0.002)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    assert finish(killed).code == -signal.SIGKILL, "it was done before it could be killed"

    again = spawn(*words, tmp_path / "killed", env=env)
    assert again.code == 0, again.err
    assert again.json["curve"] == whole.json["curve"]
    bases = [Path(done.json["base"]).name for done in (whole, again)]
    assert bases[0] == bases[1], "a base is named after its weights"
    cards = [Path(done.json["bundle"], "head.npz").read_bytes() for done in (whole, again)]
    assert cards[0] == cards[1]
