"""The served OpenAPI document against the served answers: no 5xx, no undocumented status, no schema breach."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks

from aggregator.api.rest import PREFIX, create_api
from tests.integration.api.tokens import UNLIMITED, Tokens
from tests.integration.services.world import everything

DOCUMENT: dict[str, Any] = create_api(SimpleNamespace(deciding=None, signing=None), Tokens()).openapi()  # type: ignore[arg-type]
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.ignored_auth,
]
OPERATIONS = [(method, path) for path, found in DOCUMENT["paths"].items() for method in found]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    world = everything(Path(tmp_path_factory.mktemp("contract")))
    yield create_api(world.review(), Tokens(), rate=UNLIMITED)
    world.close()


@pytest.fixture(scope="module")
def schema(api: FastAPI) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", api)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
def test_every_answer_is_as_documented(schema: schemathesis.BaseSchema, method: str, path: str) -> None:
    parameters = DOCUMENT["paths"][path][method].get("parameters", ())
    tag = any(parameter["name"] == "if-match" for parameter in parameters)

    @given(case=schema[path][method].as_strategy(), known=st.booleans())
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    def answers(case: schemathesis.Case, *, known: bool) -> None:
        if known:
            there = {"namespace": "shop", "kind": "Deployment", "name": "web"}
            case.path_parameters |= {name: there[name] for name in case.path_parameters if name in there}
            if tag:  # else every decision is refused, and what an accepted one answers is never looked at
                case.headers["if-match"] = "*"
        # Several YAML documents are one text here, and one document to schemathesis.
        several = [checks.response_schema_conformance] if (case.query or {}).get("format") == "yaml" else []
        case.call_and_validate(headers={"Authorization": "Bearer admin"}, checks=CHECKS, excluded_checks=several)

    answers()
