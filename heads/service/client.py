"""Ask a service that runs elsewhere (`featstore serve`), in three lines:

>>> from heads import Client  # doctest: +SKIP
>>> client = Client("http://127.0.0.1:8080")  # doctest: +SKIP
>>> client.predict("cat.jpg")[0]["heads"][0]["label"]  # doctest: +SKIP
'cats'

Needs nothing but Python; one picture a request.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from featstore.errors import FeatstoreError, InputError, unknown_name
from featstore.progress import Progress, silent
from featstore.records import Reason, Rejected
from heads.apply import datasets_of
from heads.predict import Prediction
from heads.service.limits import Limits

_TRIES = 5
_SECONDS = 60.0
_MOST_WAIT = 10.0
_MOST_BYTES = 2**28
"""Of an answer."""

_MOST_SENT = Limits().body_bytes
"""Of a picture."""

_REASONS = {reason.code: reason for reason in Reason}


class Client:
    """A service at ``url``. ``token`` is the one it was started with (default: $FEATSTORE_TOKEN).

    In a ``with`` block one connection is kept for all requests. Every method raises InputError if the service cannot be
    reached or refuses, with its own words. A service that is busy is asked again, up to five times, when it says to
    come back.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        scheme, host, port, path = _parts(url)
        self.url = url.rstrip("/")
        self._prefix = path.rstrip("/")
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=_SECONDS)
        self._kept = False
        self._token = token if token is not None else os.environ.get("FEATSTORE_TOKEN")
        if self._token and not (self._token.isascii() and self._token.isprintable()):
            raise InputError(
                "this token cannot be sent", where="FEATSTORE_TOKEN", expected="printable ASCII, without a line's end"
            )

    def predict(self, *pictures: str | Path | bytes) -> list[dict[str, Any]]:
        """What every head says of each picture, a file or its bytes: the objects of docs/SERVICE.md, in this order."""
        return [one for picture in pictures for one in self._post("/v1/predict", picture, "predictions")]

    def features(self, *pictures: str | Path | bytes) -> list[dict[str, Any]]:
        """The features of each picture, by fingerprint of their spec."""
        return [one for picture in pictures for one in self._post("/v1/features", picture, "pictures")]

    def heads(self) -> list[dict[str, Any]]:
        """The heads that are served."""
        return self._listed(self._ask("GET", "/v1/heads"), "heads")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        self._kept = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Whatever is wrong with an answer that is taken apart in here is an InputError of one sentence."""
        try:
            yield
        except FeatstoreError:
            raise
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            what = "what answers there does not answer as featstore does; it may be of another version"
            raise self._problem(what) from error

    def _post(self, path: str, picture: str | Path | bytes, key: str) -> list[dict[str, Any]]:
        data = picture if isinstance(picture, bytes) else _read(Path(picture))
        if len(data) > _MOST_SENT:  # the service would end the connection before all of it is sent
            raise InputError(
                "this picture is too large for a service",
                where="the picture's bytes" if isinstance(picture, bytes) else picture,
                expected=f"at most {_MOST_SENT} bytes",
                received=f"{len(data)} bytes" if isinstance(picture, bytes) else "more",
            )
        return self._listed(self._ask("POST", path, data), key)

    def _listed(self, answer: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """The objects that an answer lists."""
        with self.understanding():
            found = answer[key]
            if not (isinstance(found, list) and all(isinstance(one, dict) for one in found)):
                raise TypeError(f"{key} are no list of objects")
        return found

    def _ask(self, method: str, path: str, data: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/octet-stream"} if data is not None else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        reconnected = False
        for left in reversed(range(_TRIES)):
            try:
                self._connection.request(method, self._prefix + path, data, headers)
                response = self._connection.getresponse()
                body = response.read(_MOST_BYTES)
                if not self._kept:
                    self._connection.close()
            except (OSError, UnicodeError, http.client.HTTPException) as error:
                self._connection.close()  # it may have been closed while nobody asked: the next try opens another
                if left and not reconnected:
                    reconnected = True
                    continue
                raise self._problem(f"the service cannot be reached: {error or type(error).__name__}") from error
            if response.status in (429, 503) and left:
                time.sleep(min(_MOST_WAIT, _seconds(response.headers.get("Retry-After"))))
                continue
            return self._answer(response.status, body)
        raise AssertionError("the last try answers or raises")

    def _answer(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._problem(f"what answers there is no featstore (status {status})")
        if status == 401:
            what = "the service refuses this token" if self._token else "the service needs its token"
            raise self._problem(what, "export FEATSTORE_TOKEN=…, the one it was started with")
        if status != 200:
            raise self._problem(f"the service refuses: {value.get('detail')} (status {status})")
        return value

    def _problem(self, what: str, todo: str | None = None) -> InputError:
        return InputError(what, where=self.url, todo=todo or "check the address, and that `featstore serve` runs there")


def predict_at(url: str, head: str, images: Sequence[Path], *, progress: Progress = silent) -> tuple[Prediction, ...]:
    """:func:`heads.predict_files`, computed by the service at ``url`` with its head of that name. A file that a service
    would not take, empty or too large, is rejected here.

    Raises InputError for images that cannot be found, a service that cannot be reached, and a head that it has not, or
    has no longer.
    """
    found = []
    with Client(url) as client:
        with client.understanding():
            served = {str(one["name"]): tuple(map(str, one["classes"])) for one in client.heads()}
        if head not in served:
            raise unknown_name("head", head, served, url)
        for prefix, dataset in datasets_of(images):
            with progress("asking", len(dataset)) as advance:
                for path in dataset.paths:
                    name = str(prefix / path)
                    try:
                        data = dataset.source.read(path, _MOST_SENT)
                        if not data:
                            raise Rejected(Reason.EMPTY_FILE, "0 bytes")
                        with client.understanding():
                            [answer] = client.predict(data)
                            found.append(_prediction(name, answer, head, served[head]))
                        if found[-1].label is None and found[-1].reason is Reason.OK:
                            raise InputError(
                                "the service has stopped serving this head", where=url, received=head, todo="ask again"
                            )
                    except Rejected as rejected:
                        found.append(Prediction(name, None, served[head], (), rejected.reason, False))
                    advance(1)
    return tuple(found)


def _prediction(name: str, answer: dict[str, Any], head: str, classes: tuple[str, ...]) -> Prediction:
    reason = _REASONS[answer["rejected"]] if answer["rejected"] else Reason.OK
    says = next((one for one in answer["heads"] if one["head"] == head), None)
    if says is None:
        return Prediction(name, None, classes, (), reason, answer["from_cache"])
    probabilities = tuple(float(says["probabilities"][one]) for one in classes)
    if not all(0 <= one <= 1 for one in probabilities) or says["label"] not in classes:
        raise ValueError("these are no probabilities")
    return Prediction(name, says["label"], classes, probabilities, reason, answer["from_cache"])


def _read(file: Path) -> bytes:
    """The file, or what shows that it is too large."""
    with file.open("rb") as opened:
        return opened.read(_MOST_SENT + 1)


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path. Raises InputError."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.scheme, parts.hostname, parts.port, parts.path
    except ValueError:  # brackets that do not match, a port that is no number
        pass
    raise InputError("this is no address of a service", where="url", expected="http://HOST:PORT", received=url)


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdigit() else 1.0
