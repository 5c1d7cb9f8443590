"""Every operation of the operator API in one table, and the OpenAPI document of it.

The routes, the document, ``docs/api.md`` and the tests are made from
:data:`OPERATIONS`; there is no route that is not in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sealift.server.api import wire
from sealift.server.domain.permissions import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPERATIONS", "PREFIX", "Operation", "document"]

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint. ``takes`` is the type of a JSON body, or how raw bytes come.

    ``handler`` names a method of :class:`OperatorFace`. ``action`` is what it takes to
    be let in; ``None``: any token in force.
    """

    method: str
    path: str
    handler: str
    summary: str
    action: Action | None
    gives: type[Any] | None
    takes: type[Any] | None = None
    raw: str | None = None
    """``metadata`` is read whole, ``container`` is streamed to disk."""


OPERATIONS = (
    Operation(
        "GET",
        "/status",
        "status",
        "What this server holds.",
        Action.STATUS_READ,
        wire.StatusAnswer,
    ),
    Operation("GET", "/openapi.json", "openapi", "This document.", None, None),
    Operation(
        "POST",
        "/metadata/{repository}/root",
        "publish_root",
        "Publish the next root of `image` or `director`.",
        Action.ROOT_PUBLISH,
        wire.RootAnswer,
        raw="metadata",
    ),
    Operation(
        "POST",
        "/metadata/image/targets",
        "publish_targets",
        "Publish Image Targets; Snapshot and Timestamp are signed over it.",
        Action.TARGETS_PUBLISH,
        wire.TargetsAnswer,
        raw="metadata",
    ),
    Operation(
        "GET",
        "/metadata/{repository}/{role}",
        "show_metadata",
        "The newest published file of a role, byte for byte.",
        Action.METADATA_READ,
        None,
    ),
    Operation(
        "PUT",
        "/containers/{name}",
        "store_container",
        "Store a payload container under a new name.",
        Action.CONTAINER_STORE,
        wire.ContainerAnswer,
        raw="container",
    ),
    Operation(
        "GET",
        "/containers/{name}",
        "show_container",
        "What is stored under that name.",
        Action.CONTAINER_READ,
        wire.ContainerAnswer,
    ),
    Operation(
        "POST",
        "/releases",
        "publish_release",
        "Publish a release of listed artifacts and stored containers.",
        Action.RELEASE_PUBLISH,
        wire.ReleaseAnswer,
        takes=wire.ReleaseBody,
    ),
    Operation(
        "GET",
        "/releases",
        "list_releases",
        "Every release.",
        Action.RELEASE_READ,
        wire.ReleasesAnswer,
    ),
    Operation(
        "GET",
        "/releases/{id}",
        "show_release",
        "One release.",
        Action.RELEASE_READ,
        wire.ReleaseAnswer,
    ),
    Operation(
        "POST",
        "/devices",
        "enrol",
        "Enrol a device and give it a certificate.",
        Action.DEVICE_ENROL,
        wire.EnrolledAnswer,
        takes=wire.EnrolBody,
    ),
    Operation(
        "GET",
        "/devices",
        "list_devices",
        "Devices by id, at most `limit` after `after`.",
        Action.DEVICE_READ,
        wire.DevicesAnswer,
    ),
    Operation(
        "GET",
        "/devices/{id}",
        "show_device",
        "One device with its history.",
        Action.DEVICE_READ,
        wire.DeviceDetailAnswer,
    ),
    Operation(
        "POST",
        "/devices/{id}/revoke",
        "revoke",
        "Revoke a device and its certificates.",
        Action.DEVICE_REVOKE,
        wire.DeviceDetailAnswer,
        takes=wire.ReasonBody,
    ),
    Operation(
        "POST",
        "/deployments",
        "create_deployment",
        "Send a release to devices.",
        Action.DEPLOYMENT_CREATE,
        wire.DeploymentDetailAnswer,
        takes=wire.DeploymentBody,
    ),
    Operation(
        "GET",
        "/deployments",
        "list_deployments",
        "Every deployment.",
        Action.DEPLOYMENT_READ,
        wire.DeploymentsAnswer,
    ),
    Operation(
        "GET",
        "/deployments/{id}",
        "show_deployment",
        "One deployment with its installations.",
        Action.DEPLOYMENT_READ,
        wire.DeploymentDetailAnswer,
    ),
    Operation(
        "POST",
        "/deployments/{id}/abort",
        "abort_deployment",
        "Take back what no device has switched to yet.",
        Action.DEPLOYMENT_ABORT,
        wire.DeploymentDetailAnswer,
        takes=wire.ReasonBody,
    ),
    Operation(
        "GET",
        "/deltas",
        "list_deltas",
        "Deltas wanted and made, at most `limit` after `after`.",
        Action.DELTA_READ,
        wire.DeltasAnswer,
    ),
    Operation(
        "POST",
        "/deltas/{id}/retry",
        "retry_delta",
        "Make a delta that failed, was useless or was cancelled after all.",
        Action.DELTA_STEER,
        wire.DeltaAnswer,
    ),
    Operation(
        "POST",
        "/deltas/{id}/cancel",
        "cancel_delta",
        "Do not make a delta, or stop making it.",
        Action.DELTA_STEER,
        wire.DeltaAnswer,
    ),
    Operation(
        "GET",
        "/whoami",
        "who_am_i",
        "Whose token this is, and what it allows.",
        None,
        wire.WhoAnswer,
    ),
    Operation(
        "GET",
        "/tokens",
        "list_tokens",
        "Every token there ever was, without its secret.",
        Action.TOKEN_READ,
        wire.TokensAnswer,
    ),
    Operation(
        "POST",
        "/tokens",
        "create_token",
        "Make a token with roles; its secret is shown this once.",
        Action.TOKEN_MANAGE,
        wire.NewTokenAnswer,
        takes=wire.TokenBody,
    ),
    Operation(
        "POST",
        "/tokens/{name}/revoke",
        "revoke_token",
        "Take a token back.",
        Action.TOKEN_MANAGE,
        wire.TokenAnswer,
        takes=wire.ReasonBody,
    ),
    Operation(
        "GET",
        "/audit",
        "list_audit",
        "Audit leaves, at most `limit` after index `after`.",
        Action.AUDIT_READ,
        wire.AuditAnswer,
    ),
)


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operator API."""
    types = {
        kind
        for operation in OPERATIONS
        for kind in (operation.takes, operation.gives)
        if kind is not None
    }
    ordered = sorted(types, key=lambda kind: kind.__name__)
    template = "#/components/schemas/{name}"
    schemas, components = msgspec.json.schema_components(ordered, ref_template=template)
    shown = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        entry = paths.setdefault(PREFIX + operation.path, {})
        entry[operation.method.lower()] = _described(operation, shown)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sealift operator API", "version": version},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation, shown: Mapping[type, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "done"}
    if operation.gives is not None:
        answer["content"] = {"application/json": {"schema": shown[operation.gives]}}
    found: dict[str, Any] = {
        "operationId": operation.handler,
        "summary": operation.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", operation.path)
        ],
        "responses": {"200": answer, "default": {"description": "problem+json"}},
        "x-sealift-permission": operation.action,
    }
    if operation.takes is not None:
        content = {"application/json": {"schema": shown[operation.takes]}}
        found["requestBody"] = {"required": True, "content": content}
    elif operation.raw is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {}},
        }
    return found
