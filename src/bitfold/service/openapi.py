"""The description of a server in OpenAPI 3.1, with the columns of its model."""

from typing import Any

import bitfold
from bitfold.service.limits import Limits
from bitfold.service.messages import JSON
from bitfold.service.models import Scorer
from bitfold.service.tables import COLUMNAR

_VALUE = {"type": ["string", "number", "boolean", "null"]}
_REFUSALS = {
    "400": "the body cannot be read",
    "401": "no token, or another one",
    "406": "scores as Arrow, by a server without pyarrow",
    "408": "the body took too long to come",
    "409": "a delta of another run, or another model is being loaded",
    "413": "too many bytes or rows",
    "415": "a body of a kind that is not read",
    "422": "rows that the model cannot read",
    "429": "too many rows wait; try again after Retry-After seconds",
    "503": "no model yet, too many bodies at once, or no answer in time",
}


def description(
    scorer: Scorer, limits: Limits, *, needs_token: bool, takes_deltas: bool = False
) -> dict[str, Any]:
    """The OpenAPI description, as JSON values."""
    refusals = {status: _content(text, _ref("Refusal")) for status, text in _REFUSALS.items()}
    rows = {"type": "array", "items": _ref("Row"), "maxItems": limits.rows}
    wrapped = {
        "type": "object",
        "properties": {"rows": rows},
        "required": ["rows"],
        "additionalProperties": False,
    }
    tables = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in COLUMNAR}
    body = {JSON: {"schema": {"oneOf": [wrapped, rows, _ref("Row")]}}, **tables}
    arrow = {kind: tables[kind] for kind in list(COLUMNAR)[:1]}
    scored = _content("a score a row, in the rows' order", _ref("Scores"))
    scored["content"] |= arrow
    swapped = _content("the run that answers now", _ref("Swap"))
    out: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "bitfold serve", "version": bitfold.__version__},
        "paths": {
            "/score": {
                "post": {
                    "summary": "Probabilities of rows",
                    "requestBody": {"required": True, "content": body},
                    "responses": {"200": scored, **refusals},
                }
            },
            "/reload": {
                "post": {
                    "summary": "Load the run again, or another one, while the old one answers",
                    "requestBody": {"content": {JSON: {"schema": _ref("Reload")}}},
                    "responses": {"200": swapped, **_only(refusals, "401", "409", "422")},
                }
            },
            "/health": _get("Whether the server lives", {"type": "object"}),
            "/ready": _get("Whether a model is loaded and warm", {"type": "object"}, "503"),
            "/metrics": _get("Counters for Prometheus", {"type": "string"}, kind="text/plain"),
        },
        "components": {"schemas": _schemas(scorer)},
        "x-bitfold-run": scorer.digest,
    }
    if takes_deltas:
        binary = {"schema": {"type": "string", "format": "binary"}}
        out["paths"]["/delta"] = {
            "post": {
                "summary": "Answer by the run that a file of `bitfold delta` makes of this one",
                "requestBody": {
                    "required": True,
                    "content": {"application/octet-stream": binary},
                },
                "responses": {"200": swapped, **_only(refusals, "401", "409", "413", "422")},
            }
        }
    if needs_token:
        out["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path in {"/score", "/reload", "/metrics", "/delta"} & out["paths"].keys():
            for operation in out["paths"][path].values():
                operation["security"] = [{"token": []}]
    return out


def _schemas(scorer: Scorer) -> dict[str, Any]:
    value = {"anyOf": [_VALUE, {"type": "array", "items": _VALUE}]}
    text = {"type": "string"}
    parts = {"status": {"type": "integer"}} | dict.fromkeys(
        ("problem", "got", "expected", "fix"), text
    )
    return {
        "Row": {
            "type": "object",
            "description": "Values by column; one that is not there is missing.",
            "properties": dict.fromkeys(scorer.columns, value),
        },
        "Scores": _object(
            scores={"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
            run={"type": "string", "description": "SHA-256 of the run's manifest"},
        ),
        "Reload": {"type": "object", "properties": {"run": text}},
        "Swap": _object(
            run=text,
            before={"type": ["string", "null"]},
            changed={"type": "boolean"},
            seconds={"type": "number"},
        ),
        "Refusal": _object(error={"type": "object", "properties": parts}),
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(text: str, schema: dict[str, Any], kind: str = JSON) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _only(refusals: dict[str, Any], *statuses: str) -> dict[str, Any]:
    return {status: refusals[status] for status in statuses}


def _get(summary: str, schema: dict[str, Any], *refusals: str, kind: str = JSON) -> dict[str, Any]:
    answers = {"200": _content("yes", schema, kind)}
    answers |= {each: _content(_REFUSALS[each], _ref("Refusal")) for each in refusals}
    return {"get": {"summary": summary, "responses": answers}}
