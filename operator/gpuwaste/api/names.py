"""Names that the API fixes: group, version, annotations, field managers, names of objects."""

from __future__ import annotations

import hashlib
import re

__all__ = [
    "ANNOTATION_APPROVED_BY",
    "ANNOTATION_APPROVED_SPEC_HASH",
    "ANNOTATION_APPROVED_TIME",
    "API_VERSION",
    "CATEGORY",
    "GROUP",
    "MAX_NAME_LENGTH",
    "UNKNOWN",
    "UNMEASURED",
    "VERSION",
    "object_name",
]

GROUP = "gpuwaste.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "gpu-rightsizing"
"""`kubectl get gpu-rightsizing` lists every kind. It must differ from the singular `gpuwaste`."""

ANNOTATION_APPROVED_BY = f"{GROUP}/approved-by"
ANNOTATION_APPROVED_SPEC_HASH = f"{GROUP}/approved-spec-hash"
ANNOTATION_APPROVED_TIME = f"{GROUP}/approved-time"

UNKNOWN = "<unknown>"
"""What a column prints where a price is not known; never a zero."""
UNMEASURED = "<unmeasured>"
"""What a column prints where an activity was not measured; never a zero."""

MAX_NAME_LENGTH = 63
"""An object's name may have 253 characters; 63 also fits a label's value."""

_HASH_LENGTH = 8
_NOT_DNS = re.compile(r"[^a-z0-9]+")


def object_name(kind: str, name: str, *key: str) -> str:
    """A DNS label `<kind>-<name>-<hash8>` that two owners never share by accident.

    Equal arguments give the same name on every machine. The hash covers the arguments as they were
    given, so that what lower case, replaced characters and cutting make alike stays apart.

    Args:
        kind: what the object is about, for example `Deployment`.
        name: the name of that.
        key: what else tells two of them apart, for example the API group and the cluster.
    """
    # A length before each part: ("a", "bc") and ("ab", "c") must not meet.
    identity = "".join(f"{len(part)}:{part}" for part in (kind, name, *key))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:_HASH_LENGTH]
    words = _NOT_DNS.sub("-", f"{kind}-{name}".lower()).strip("-")
    room = MAX_NAME_LENGTH - _HASH_LENGTH - 1
    readable = words[:room].rstrip("-")
    return f"{readable}-{digest}" if readable else f"x-{digest}"
