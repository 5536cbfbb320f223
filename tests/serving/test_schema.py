"""The OpenAPI document is true: equal to the routes, and nothing that schemathesis makes of it breaks the service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serving import openapi
from serving.api import Api
from serving.params import from_environment
from serving.runtime import Runtime

NOT_IN_CONTRACT = {"/", "/docs", "/openapi.json", "/v1/cards", "/static/{name}"}


def test_the_document_names_exactly_the_routes(tmp_path: Path) -> None:
    api = Api(Runtime(from_environment({"HOMERANKER_HOME": str(tmp_path)}), None))
    routes = {
        (route.path.replace(":anything", "").replace(":path", ""), method.lower())
        for route in api.routes()
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {(path, method) for path, calls in openapi.paths().items() for method in calls}
    assert told == {(path, method) for path, method in routes if path not in NOT_IN_CONTRACT}


def test_every_example_of_the_document_succeeds(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            content = call.get("requestBody", {}).get("content", {}).get("application/json", {})
            example = content.get("example")
            if content and example is None:
                name = content["schema"]["$ref"].rsplit("/", 1)[1]
                example = document["components"]["schemas"][name]["examples"][0]
            answer = client.request(method, path.replace("{", "").replace("}", ""), json=example)
            assert answer.status_code in ((200, 202) if content else (200, 202, 404, 422)), (path, answer.text)


@pytest.mark.slow
def test_schemathesis_finds_no_fault_with_a_fixed_seed(service: str) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [str(Path(sys.executable).parent / "st"), "run", f"{service}/openapi.json", "--seed", "7"]
    done = subprocess.run(
        [*command, "--checks", checks, "--max-examples", "60"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
