"""The API for machines: an OpenAPI 3.1 document.

Owns what docs/api.md says, in that form. A test has schemathesis ask every call and hold the
answers against it. Must not know how anything is answered.
"""

from typing import Any, TypeAlias

import restorefs

Schema: TypeAlias = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TYPE: Schema = {"enum": ["file", "directory", "symlink", "other"]}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(needed: Schema, optional: Schema | None = None) -> Schema:
    """Return an object that may come to have more fields."""
    properties = needed | (optional or {})
    return {"type": "object", "properties": properties, "required": list(needed)}


_PROBLEM = _object(
    {
        "type": _TEXT,
        "title": _TEXT,
        "status": _NUMBER,
        "detail": _TEXT,
        "errno": _maybe(_TEXT),
    }
)
_BACKUP = {
    "backup_id": _TEXT,
    "vm_name": _TEXT,
    "created_at": _maybe(_TIME),
    "disk_indexes": _list(_NUMBER),
}
_RECORD = {
    "id": _NUMBER,
    "disk_index": _NUMBER,
    "vmware_disk_key": _maybe(_NUMBER),
    "size_gb": _maybe(_NUMBER),
    "qcow2_path": _TEXT,
    "status": _TEXT,
}
_VOLUME = _object(
    {
        "index": _NUMBER,
        "name": _TEXT,
        "folder": _FLAG,
        "is_member": _FLAG,
        "elsewhere": _maybe(_NUMBER),
        "start": _maybe(_NUMBER),
        "size": _maybe(_NUMBER),
        "filesystem": _maybe(_TEXT),
        "readable": _FLAG,
        "encrypted": _FLAG,
        "label": _TEXT,
        "uuid": _TEXT,
        "clean": _maybe(_FLAG),
        "notes": _list(_TEXT),
        "error": _maybe(_TEXT),
    }
)
_DISK = _object(
    _RECORD | {"error": _maybe(_TEXT)},
    {"size": _NUMBER, "table": _TEXT, "notes": _list(_TEXT), "volumes": _list(_VOLUME)},
)
_MOUNT = _object(
    {
        "mount_id": _TEXT,
        "backup_id": _TEXT,
        "backup_disk_id": _NUMBER,
        "disk_index": _NUMBER,
        "mount_path": _TEXT,
        "nbd_device": _TEXT,
        "filesystem_type": _TEXT,
        "status": {"const": "mounted"},
        "created_at": _TIME,
        "last_accessed_at": _TIME,
        "expires_at": _maybe(_TIME),
    }
)
_FILE = {
    "name": _TEXT,
    "path": _TEXT,
    "type": _TYPE,
    "size": _NUMBER,
    "mode": {"type": "string", "pattern": "^[0-7]{4}$"},
    "modified_time": _maybe(_TIME),
    "uid": _NUMBER,
    "gid": _NUMBER,
}
_SESSION = _object(
    {
        "name": _TEXT,
        "kind": {"enum": ["token", "unix", "insecure"]},
        "vms": _maybe(_list(_TEXT)),
    }
)
_ATTACHED = _object(
    {
        "mount_id": _TEXT,
        "backup_id": _TEXT,
        "disk_index": _NUMBER,
        "filesystems": _list(_TEXT),
        "attached_at": _TIME,
        "last_accessed_at": _TIME,
        "expires_at": _maybe(_TIME),
        "requests_under_way": _NUMBER,
        "bytes_read": _NUMBER,
    }
)
_FAILURE = _object(
    {
        "backup_id": _TEXT,
        "disk_index": _NUMBER,
        "reason": _TEXT,
        "errno": _NUMBER,
        "at": _TIME,
    }
)
_PAGE = {"total_count": _NUMBER, "offset": _NUMBER}

_OFFSET = ("offset", {"type": "integer", "minimum": 0, "maximum": 2**53})
_LIMIT = ("limit", {"type": "integer", "minimum": 1, "maximum": 2**53})
_PATH = ("path", _TEXT)

_PATH_BACKUP = ("backup_id", {"type": "string", "minLength": 1})
_PATH_INDEX = ("disk_index", {"type": "integer", "minimum": 0})
_PATH_MOUNT = ("mount_id", {"type": "string", "minLength": 1, "pattern": "^[^/]+$"})


def _parameters(
    where: str, *parameters: tuple[str, Schema], needed: tuple[str, ...] = ()
) -> list[Schema]:
    return [
        {
            "name": name,
            "in": where,
            "required": where == "path" or name in needed,
            "schema": schema,
        }
        for name, schema in parameters
    ]


def _call(
    about: str,
    answer: Schema | None,
    *,
    path: tuple[tuple[str, Schema], ...] = (),
    query: tuple[tuple[str, Schema], ...] = (),
    needed: tuple[str, ...] = (),
    body: Schema | None = None,
    media_type: str = "application/json",
    more: Schema | None = None,
    status: str = "200",
) -> Schema:
    """Return an operation. `answer` None: any bytes."""
    content = {media_type: {"schema": answer} if answer is not None else {}}
    problem = {
        "description": "A problem (RFC 9457).",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    call: Schema = {
        "summary": about,
        "parameters": _parameters("path", *path) + _parameters("query", *query, needed=needed),
        "responses": {
            status: {"description": "Done.", "content": content},
            **(more or {}),
            "4XX": problem,
            "5XX": problem,
        },
    }
    if body is not None:
        call["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return call


def _open(call: Schema) -> Schema:
    """Return a call that needs no token."""
    return call | {"security": []}


def make_document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "restorefs",
            "version": restorefs.__version__,
            "description": "Browse VM backups: every disk of every backup. Read-only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "restorefs_session"},
            },
            "schemas": {"Problem": _PROBLEM},
        },
        "paths": _backups() | _restore() | _files() | _daemon(),
    }


def _backups() -> Schema:
    sort = {"enum": ["created", "-created", "id", "-id"]}
    vm = _object(
        {
            "vm_name": _TEXT,
            "backups": _NUMBER,
            "first_at": _maybe(_TIME),
            "latest_at": _maybe(_TIME),
            "latest_backup_id": _TEXT,
        }
    )
    version = _object(
        {
            "backup_id": _TEXT,
            "created_at": _maybe(_TIME),
            "mount_id": _TEXT,
            "disk_index": _NUMBER,
            "path": _TEXT,
            "type": _TYPE,
            "size": _NUMBER,
            "modified_time": _TIME,
            "differs": _maybe(_FLAG),
        }
    )
    absent = {"backup_id": _TEXT, "created_at": _maybe(_TIME)}
    error = absent | {"disk_index": _NUMBER, "detail": _TEXT, "errno": _maybe(_TEXT)}
    found = {
        "versions": _list(version),
        "absent": _list(_object(absent)),
        "errors": _list(_object(error)),
    }
    versions = {"vm": _TEXT, "path": _TEXT, **found}
    backup = "/api/v1/backups/{backup_id}"
    attachment = (_PATH_BACKUP, _PATH_INDEX)
    detached = _object({"backup_id": _TEXT, "disk_index": _NUMBER, "detached": _FLAG})
    return {
        "/api/v1/backups": {
            "get": _call(
                "The backups.",
                _object({"backups": _list(_object(_BACKUP))} | _PAGE),
                query=(
                    *(_OFFSET, _LIMIT, ("vm", _TEXT), ("q", _TEXT)),
                    *(("since", _TIME), ("until", _TIME), ("sort", sort)),
                ),
            )
        },
        "/api/v1/vms": {
            "get": _call(
                "The VMs.",
                _object({"vms": _list(vm)} | _PAGE),
                query=(_OFFSET, _LIMIT, ("q", _TEXT)),
            )
        },
        "/api/v1/versions": {
            "get": _call(
                "A file in every backup of a VM; attaches their disks.",
                _object(versions | _PAGE),
                query=(
                    *(
                        ("vm", {"type": "string", "minLength": 1}),
                        ("path", {"type": "string", "minLength": 1}),
                    ),
                    ("disk_index", {"type": "integer", "minimum": 0, "maximum": 2**53}),
                    *(_OFFSET, ("limit", {"type": "integer", "minimum": 1, "maximum": 100})),
                ),
                needed=("vm", "path"),
            )
        },
        backup + "/disks": {
            "get": _call(
                "A backup's disks.",
                _object({"backup_id": _TEXT, "disks": _list(_object(_RECORD)), "count": _NUMBER}),
                path=(_PATH_BACKUP,),
            )
        },
        backup + "/volumes": {
            "get": _call(
                "Everything on a backup's disks; attaches them.",
                _object(_BACKUP | {"disks": _list(_DISK)}),
                path=(_PATH_BACKUP,),
            )
        },
        backup + "/disks/{disk_index}/attachment": {
            "put": _call("Attach a disk.", _DISK, path=attachment),
            "delete": _call("Let a disk go.", detached, path=attachment),
        },
    }


def _restore() -> Schema:
    asked = {
        "type": "object",
        "properties": {"backup_id": _TEXT, "disk_index": {"type": "integer", "minimum": 0}},
        "required": ["backup_id"],
    }
    return {
        "/api/v1/restore/mount": {
            "post": _call("Have a mount of a disk; attaches it.", _MOUNT, body=asked)
        },
        "/api/v1/restore/mounts": {
            "get": _call("What is attached.", _object({"mounts": _list(_MOUNT), "count": _NUMBER}))
        },
        "/api/v1/restore/{mount_id}": {
            "delete": _call(
                "Let a mount's disk go.",
                _object({"mount_id": _TEXT, "status": {"const": "unmounted"}}),
                path=(_PATH_MOUNT,),
            )
        },
    }


def _files() -> Schema:
    mount = "/api/v1/restore/{mount_id}"
    listed = _object(_FILE, {"target": _TEXT, "target_type": _maybe(_TYPE), "error": _TEXT})
    orders = ("name", "size", "time", "type")
    sort = {"enum": [*orders, *(f"-{order}" for order in orders)]}
    any_bytes = {"description": "A part of it.", "content": {"application/octet-stream": {}}}
    shown: Schema = {
        kind: {} for kind in ("text/plain", "image/png", "image/jpeg", "image/gif", "image/webp")
    }
    most = ("bytes", {"type": "integer", "minimum": 1, "maximum": 1 << 20})
    preview = _call(
        "A file, shown.", None, path=(_PATH_MOUNT,), query=(_PATH, most), needed=("path",)
    )
    preview["responses"]["200"]["content"] = shown
    packed = _call(
        "Folders as an archive, made while it is sent.",
        None,
        path=(_PATH_MOUNT,),
        query=(
            ("path", {"type": "array", "items": _TEXT, "maxItems": 2000}),
            ("format", {"enum": ["zip", "tar.zst"]}),
            ("errors", {"enum": ["abort", "list"]}),
        ),
        media_type="application/zip",
    )
    packed["responses"]["200"]["content"]["application/zstd"] = {}
    return {
        mount + "/files": {
            "get": _call(
                "The entries of a folder.",
                _object(
                    {"mount_id": _TEXT, "path": _TEXT, "files": _list(listed)} | _PAGE,
                    {"found": _maybe(_NUMBER)},
                ),
                path=(_PATH_MOUNT,),
                query=(
                    *(_PATH, _OFFSET, _LIMIT, ("sort", sort)),
                    ("folders_first", {"enum": ["true", "false"]}),
                    *(("q", _TEXT), ("find", _TEXT)),
                ),
            )
        },
        mount + "/download": {
            "get": _call(
                "A file.",
                None,
                path=(_PATH_MOUNT,),
                query=(_PATH,),
                needed=("path",),
                media_type="application/octet-stream",
                more={"206": any_bytes, "304": {"description": "As it was."}},
            )
        },
        mount + "/preview": {"get": preview},
        mount + "/archive": {"get": packed, "post": _posted(packed)},
        mount + "/search": {
            "get": _call(
                "Names that match a pattern, one JSON record on each line.",
                None,
                path=(_PATH_MOUNT,),
                query=(
                    ("pattern", {"type": "string", "minLength": 1, "maxLength": 255}),
                    *(_PATH, ("case", {"enum": ["true", "false"]})),
                    ("type", {"enum": ["file", "directory", "symlink"]}),
                    ("limit", {"type": "integer", "minimum": 1, "maximum": 100_000}),
                ),
                needed=("pattern",),
                media_type="application/x-ndjson",
            )
        },
    }


def _posted(call: Schema) -> Schema:
    """Return a call whose query comes as a form's body."""
    query = [each for each in call["parameters"] if each["in"] == "query"]
    form = {"type": "object", "properties": {each["name"]: each["schema"] for each in query}}
    content = {"application/x-www-form-urlencoded": {"schema": form}}
    return call | {
        "parameters": [each for each in call["parameters"] if each["in"] == "path"],
        "requestBody": {"required": True, "content": content},
    }


def _daemon() -> Schema:
    status = _object(
        {
            "version": _TEXT,
            "pid": _maybe(_NUMBER),
            "mountpoint": _TEXT,
            "started_at": _TIME,
            "catalog": _maybe(_TEXT),
            "catalog_error": _maybe(_TEXT),
            "catalog_unread": _maybe(_list(_TEXT)),
            "backups": _NUMBER,
            "disks": _NUMBER,
            "max_attached": _NUMBER,
            "idle_timeout_seconds": {"type": "number"},
            "listening": _list(_TEXT),
            "cache": _maybe(_object({"hits": _NUMBER, "misses": _NUMBER})),
            "attached": _list(_ATTACHED),
            "failures": _list(_FAILURE),
        }
    )
    changed = {
        "backups": _NUMBER,
        "disks": _NUMBER,
        "added": _list(_TEXT),
        "removed": _list(_TEXT),
    }
    health = _object({"status": _TEXT})
    token = {"type": "object", "properties": {"token": _TEXT}, "required": ["token"]}
    down = {
        "503": {
            "description": "The catalog cannot be read.",
            "content": {"application/json": {"schema": health}},
        }
    }
    return {
        "/api/v1/session": {
            "get": _open(_call("Who one is.", _SESSION)),
            "post": _open(_call("Begin a browser's session.", _SESSION, body=token)),
            "delete": _open(_call("End it.", _object({"ended": _FLAG}))),
        },
        "/api/v1/status": {"get": _call("The daemon's state.", status)},
        "/api/v1/reload": {"post": _call("Ask the catalog now.", _object(changed))},
        "/api/v1/openapi.json": {"get": _open(_call("This document.", {"type": "object"}))},
        "/metrics": {"get": _call("Figures.", None, media_type="text/plain")},
        "/healthz": {"get": _open(_call("Whether all is well.", health, more=down))},
    }
