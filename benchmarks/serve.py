"""The service on loopback with VGG16 at 150 pixels: known pictures, new ones one by one, new ones from 16 clients.

    python benchmarks/serve.py DATA [--images 1260] [--seconds 5] [--repeats 3] [--json | --save]

Client and server share the machine's cores. Known pictures: the time of an answer, one after another on one connection,
and answers a second from eight clients; baseline: `/healthz` in the same way, which is what HTTP alone costs. New
pictures one by one: against an answer for a known one. New pictures from 16 clients, in pictures a second: against
`featstore extract` of as many others in the server's precision, the base open on both sides before the clock starts;
the same 420 photographs for each side in each repeat, made new by some bytes after their end, so that the start of an
extraction counts little. The sides take turns in going first.

Same result: every answer is 200, and was known or new as it should be; the rows are those of the extraction. What was
asked of the service stands in each row (``asked``), and whether it ``holds``.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, open_once
from harness import add_options, report, row

import featstore

_SIZE = 150
_CLIENTS = 16
_ALONE = 60
"""New pictures one by one in each repeat."""

Ask = Callable[[http.client.HTTPConnection, int], bool]


def featstore_command(*words: object) -> None:
    """Run a command to its end."""
    code = "from cli import app; app()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True)


def serving(bundles: Path, store: Path) -> tuple[subprocess.Popen[str], int]:
    """A server in a process of its own, ready; and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["serve", str(bundles), "--store", str(store), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", "from cli import app; app()", *words], stderr=subprocess.PIPE, text=True
    )
    for line in server.stderr or ():
        if line.startswith("serving on"):
            return server, port
    raise SystemExit("the server did not start")


def get_health(connection: http.client.HTTPConnection, _: int) -> bool:
    """What HTTP alone costs."""
    connection.request("GET", "/healthz")
    return connection.getresponse().read() == b'{"status":"ok","problems":[]}'


def predicting(pictures: Sequence[bytes], known: bool) -> Ask:
    """Ask about the pictures in turn; True if each was known, or new, as it should be."""

    def ask(connection: http.client.HTTPConnection, number: int) -> bool:
        headers = {"Content-Type": "image/jpeg"}
        connection.request("POST", "/v1/predict", pictures[number % len(pictures)], headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        return response.status == 200 and answer["predictions"][0]["from_cache"] == known

    return ask


def one_by_one(port: int, ask: Ask, count: int) -> tuple[list[float], bool]:
    """Seconds of each of ``count`` answers on one connection, and whether all were right."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    seconds, good = [], True
    for number in range(count):
        started = time.perf_counter()
        good &= ask(connection, number)
        seconds.append(time.perf_counter() - started)
    connection.close()
    return seconds, good


def at_once(port: int, ask: Ask, clients: int, numbers: Iterator[int], seconds: float | None) -> tuple[float, bool]:
    """Answers a second of so many clients, until the numbers or the seconds are over; and whether all were right."""
    lock, good, done = threading.Lock(), [], [0]
    stop = None if seconds is None else time.perf_counter() + seconds

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while stop is None or time.perf_counter() < stop:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            good.append(ask(connection, number))
            done[0] += 1
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done[0] / (time.perf_counter() - started), all(good)


def percentile(taken: Sequence[float], percent: float) -> float:
    """Of the seconds of many answers."""
    return float(np.percentile(taken, percent))


def asked(found: dict[str, Any], value: float, *, of: str = "ours", most: bool = False) -> dict[str, Any]:
    """The row, with the ``value`` that was asked of one of its numbers: it should have so much at least, or at most."""
    holds = found[of] <= value if most else found[of] >= value
    about = f"{'at most' if most else 'at least'} {value:g}"
    about += f" {found['unit']}" if of == "ours" else " of the baseline"
    case = f"{found['case']} (asked: {about})"
    return {**found, "case": case, "asked": about, "holds": holds}


def made_new(photographs: Sequence[Path], folder: Path) -> list[Path]:
    """These photographs in a folder of their own, as files that nobody has seen: its name comes after their end."""
    folder.mkdir()
    made = [folder / f"{number}{path.suffix}" for number, path in enumerate(photographs)]
    for path, one in zip(photographs, made, strict=True):
        one.write_bytes(path.read_bytes() + f"{folder.name} {one.name}".encode())
    return made


def counting() -> Iterator[int]:
    """0, 1, 2 …"""
    number = 0
    while True:
        yield number
        number += 1


def measure(data: Path, images: int, seconds: float, repeats: int) -> Iterator[dict[str, Any]]:
    """All rows."""
    paths = featstore.open_dataset(data).paths
    trained = [data / path for path in paths if "train/" in path][:: max(1, len(paths) // 120)]
    new = [data / path for path in paths if data / path not in set(trained)]
    request = featstore.Request("vgg16", image_size=_SIZE)
    found: dict[str, list[float]] = {}
    good = True

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "few.csv").write_text("path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in trained))
        words = ("--head", "logreg", "--image-size", _SIZE, "--out", place / "bundles", "--store", place / "store")
        featstore_command("train", place / "few.csv", "--outside", *words)
        known = [path.read_bytes() for path in trained]
        left = itertools.cycle(new)
        others = featstore.Store.open(place / "others", create=True)

        def extract(dataset: featstore.Dataset) -> None:
            started = time.perf_counter()
            done = featstore.extract(dataset, request, store=others)
            note("extract/s", done.report.specs[0].computed / (time.perf_counter() - started))

        server, port = serving(place / "bundles", place / "store")
        try:
            for turn in range(repeats):
                single = made_new([next(left) for _ in range(_ALONE)], place / f"single {turn}")
                for name, ask, count in (
                    ("health", get_health, 300), ("known", predicting(known, True), 300),
                    ("alone", predicting([path.read_bytes() for path in single], False), _ALONE),
                ):  # fmt: skip
                    taken, right = one_by_one(port, ask, count)
                    note(name, statistics.median(taken))
                    note(f"{name}, slow", percentile(taken, 95))
                    good &= right
                for name, ask in (("health/s", get_health), ("known/s", predicting(known, True))):
                    rate, right = at_once(port, ask, 8, counting(), seconds)
                    note(name, rate)
                    good &= right
                chosen = [next(left) for _ in range(images // repeats)]
                fresh = made_new(chosen, place / f"fresh {turn}")
                ask = predicting([path.read_bytes() for path in fresh], False)
                dataset = featstore.open_dataset(made_new(chosen, place / f"others {turn}"))
                if turn % 2:
                    extract(dataset)
                rate, right = at_once(port, ask, _CLIENTS, iter(range(len(fresh))), None)
                note("new/s", rate)
                good &= right
                if not turn % 2:
                    extract(dataset)
        finally:
            server.terminate()
            server.wait(60)
        fresh = fresh[:100]
        again = featstore.extract(fresh, request, store=others).jobs[0].spec
        tables = [
            featstore.load_table(fresh, again, split="unlabelled", store=one) for one in (place / "store", others)
        ]
        good &= np.array_equal(tables[0].X, tables[1].X)

    def compared(case: str, ours: str, baseline: str, unit: str) -> dict[str, Any]:
        return row(case, found[ours], found[baseline], unit, good)

    yield asked(compared("a known picture, against HTTP alone, median", "known", "health", "s"), 0.01, most=True)
    yield compared("a known picture, against HTTP alone, 95 % of all", "known, slow", "health, slow", "s")
    yield asked(
        compared("known pictures from 8 clients, against HTTP alone", "known/s", "health/s", "answers/s"), 200.0
    )
    yield asked(compared("a new picture alone, against a known one, median", "alone", "known", "s"), 0.15, most=True)
    yield compared("a new picture alone, against a known one, 95 % of all", "alone, slow", "known, slow", "s")
    about = f"new pictures from {_CLIENTS} clients, against featstore extract"
    yield asked(compared(about, "new/s", "extract/s", "images/s"), 0.85, of="ratio")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=1260)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    os.environ.setdefault("FEATSTORE_HOME", tempfile.gettempdir())
    open_once()
    Case.of(f"vgg16:{_SIZE}").runtime(featstore.open_dataset(given.data))
    rows = list(measure(given.data, given.images, given.seconds, given.repeats))
    for one in rows:
        if not one.get("holds", True):
            print(f"not as asked: {one['case']}: {one['ours']:.3g} {one['unit']}", file=sys.stderr)
    report("serve", rows, ("fastapi", "uvicorn", "openvino"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
