"""The reference of the service: every route, what it takes and gives, and who may ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.heads.service.conftest import Serve

_TOKEN = "0123456789abcdef-token"
_PROBES = {"/healthz", "/readyz"}


@pytest.fixture
def reference(serve: Serve) -> dict[str, Any]:
    return dict(serve().ask("GET", "/openapi.json").json())


def operations(reference: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in reference["paths"].items():
        for operation in methods.values():
            yield path, operation


def lacking(reference: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    """The parts of a schema that neither have an example nor consist of parts that do."""
    while "$ref" in schema:
        schema = {**reference["components"]["schemas"][schema["$ref"].rpartition("/")[2]], **schema}
        del schema["$ref"]
    if schema.get("examples") or "example" in schema:
        return
    if schema.get("type") == "array":
        yield from lacking(reference, schema["items"], f"{where}[]")
    elif schema.get("properties"):
        for name, part in schema["properties"].items():
            yield from lacking(reference, part, f"{where}.{name}")
    else:
        yield where


def test_it_names_every_route_with_its_bodies(reference: dict[str, Any]) -> None:
    assert {path for path, _ in operations(reference)} == {
        "/v1/predict", "/v1/features", "/v1/heads", "/v1/heads/{name}", "/v1/heads/{name}/map", "/v1/stores",
        "/v1/images/{digest}/thumbnail", "/v1/neighbours/{digest}", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    assert "application/zip" in reference["paths"]["/v1/predict"]["post"]["requestBody"]["content"]


def test_every_body_and_every_answer_has_an_example(reference: dict[str, Any]) -> None:
    found = []
    for path, operation in operations(reference):
        bodies = {"body": operation["requestBody"]} if "requestBody" in operation else {}
        for name, part in {**bodies, **operation["responses"]}.items():
            for kind, content in part.get("content", {}).items():
                if "example" not in content:
                    found += lacking(reference, content["schema"], f"{path} {name} {kind} ")
    assert found == []


def test_what_any_request_may_be_refused_with_is_told_of_every_route(reference: dict[str, Any]) -> None:
    refusals = {"400", "401", "403", "413", "414", "415", "421", "431", "503"}
    for path, operation in operations(reference):
        assert operation["responses"].keys() >= refusals, path


def test_a_slash_too_many_leads_nowhere_and_is_no_redirect(serve: Serve) -> None:
    assert serve().ask("GET", "/v1/heads/", follow_redirects=False).status_code == 404


def test_without_a_token_none_is_asked_for(reference: dict[str, Any]) -> None:
    assert "securitySchemes" not in reference["components"]
    assert not any("security" in operation for _, operation in operations(reference))


def test_with_a_token_every_route_but_the_probes_says_that_it_must_be_borne(serve: Serve) -> None:
    answer = serve(token=_TOKEN).ask("GET", "/openapi.json", headers={"authorization": f"Bearer {_TOKEN}"})
    reference = answer.json()
    assert _TOKEN not in answer.text
    [(name, scheme)] = reference["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, operation in operations(reference):
        assert operation.get("security") == (None if path in _PROBES else [{name: []}]), path
