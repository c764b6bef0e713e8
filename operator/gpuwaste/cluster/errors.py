"""What an API server refuses, by what the caller can do about it; not answering at all is `UnreachableError`."""

from __future__ import annotations

from gpuwaste.model.errors import GpuwasteError

__all__ = [
    "ApiError",
    "ConflictError",
    "DisruptionBudgetError",
    "ForbiddenError",
    "GoneError",
    "InvalidError",
    "NotFoundError",
]


class ApiError(GpuwasteError):
    """The API server answered and refused.

    Args:
        message: what the server said, in one line.
        status: the HTTP status, 0 where none applies.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        """Keep the status beside the message."""
        self.message, self.status = message, status
        super().__init__(message)


class NotFoundError(ApiError):
    """404: the object, its namespace or its kind does not exist."""


class ConflictError(ApiError):
    """409: another field manager owns a field, or the object is not the one (uid, resourceVersion) that was meant."""


class ForbiddenError(ApiError):
    """401 or 403: the credentials are not accepted, or do not allow this."""


class GoneError(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class InvalidError(ApiError):
    """400 or 422: the object or a parameter breaks a rule of its schema."""


class DisruptionBudgetError(ApiError):
    """429 on an eviction: a PodDisruptionBudget does not allow it now."""
