"""Every call of the OpenAPI document, asked with what schemathesis makes of it.

Whatever is sent, the daemon answers, with what the document says, and never with a bug of its own;
its log stays clean.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks

from tests.mounted.api import Api, api
from tests.mounted.disks import Sample

_EXAMPLES = 25
_CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def asked(sample: Sample) -> Iterator[Api]:
    with (
        tempfile.TemporaryDirectory() as folder,
        api(Path(folder), "--images", sample.repository) as found,
    ):
        yield found


def _calls(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, calls in document["paths"].items() for method in calls]


def test_the_document_has_every_call(asked: Api) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for _, path in _calls(asked.get("/openapi.json")):
        assert path in text or path.rpartition("/")[2] in text, path


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_every_call_answers_as_the_document_says(
    asked: Api, sample: Sample, mode: schemathesis.GenerationMode
) -> None:
    """With a real mount and backup in the path, half of the time, so that more than 404 comes."""
    document = asked.get("/openapi.json")
    _have_real_ones(document, asked.mount(sample.full, 1), sample.full)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = asked.url
    headers = {"Authorization": f"Bearer {asked.token}"}
    seen: Counter[int] = Counter()

    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and not _can_be_wrong(operation):
            continue

        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            response = case.call_and_validate(headers=headers, checks=_CHECKS)
            seen[response.status_code] += 1

        ask()
    expected = {200, 404} if mode is schemathesis.GenerationMode.POSITIVE else {400, 404}
    assert expected <= seen.keys(), seen
    assert not {500, 502} & seen.keys(), seen
    assert asked.client.get("/healthz").json() == {"status": "ok"}


def _can_be_wrong(operation: Any) -> bool:
    """Whether a call takes anything."""
    return bool(operation.path_parameters or operation.query or operation.body)


def _have_real_ones(document: dict[str, Any], mount: str, backup: str) -> None:
    """Have the document's parameters mean something that is there, half of the time."""
    known = {
        "mount_id": [mount],
        "backup_id": [backup],
        "path": ["/", "/big", "/small", "/lost+found", "/nope", "/../x"],
        "vm": ["web"],
    }
    asked = document["paths"]["/api/v1/restore/mount"]["post"]["requestBody"]
    properties = asked["content"]["application/json"]["schema"]["properties"]
    properties["backup_id"] = {"anyOf": [{"const": backup}, properties["backup_id"]]}
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            for parameter in call["parameters"]:
                values = known.get(parameter["name"])
                # Who unmounts what the others use gets a 404 for them.
                if values is None or (method == "delete" and path.endswith("{mount_id}")):
                    continue
                plain = parameter["schema"]
                if plain.get("type") == "array":
                    plain = plain["items"]
                    parameter["schema"]["items"] = {"anyOf": [{"enum": values}, plain]}
                else:
                    parameter["schema"] = {"anyOf": [{"enum": values}, plain]}
