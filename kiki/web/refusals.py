"""What HTTP itself refuses before a service is asked, and how every error of kiki becomes a status.

Errors know no HTTP; `status_of` is the one table that translates them.
"""

from __future__ import annotations

from http import HTTPStatus
from math import ceil, isfinite
from typing import ClassVar

from kiki import errors
from kiki.errors import KikiError

Headers = tuple[tuple[str, str], ...]


class HttpRefusal(KikiError):
    """The request was refused before it reached the service."""

    code: ClassVar[str] = "http_refused"
    status: ClassVar[int] = 400
    headers: Headers = ()


class RouteUnknown(HttpRefusal):
    """There is no such path here."""

    code: ClassVar[str] = "route_unknown"
    status: ClassVar[int] = 404


class MethodNotAllowed(HttpRefusal):
    """The path does not take this method."""

    code: ClassVar[str] = "method_not_allowed"
    status: ClassVar[int] = 405

    def __init__(self, allowed: str) -> None:
        """`allowed` is the value of the Allow header: `GET, POST`."""
        # The original's words, and no others where it answers plain text; what is accepted stands beside them.
        super().__init__("Method not allowed")
        self.allowed = allowed
        self.headers = (("Allow", allowed),)


class BodyLate(HttpRefusal):
    """The request's body did not arrive in time; nothing was changed."""

    code: ClassVar[str] = "body_late"
    status: ClassVar[int] = 408


class BodyTooLarge(HttpRefusal):
    """The request's body is larger than what is accepted; nothing was changed."""

    code: ClassVar[str] = "body_too_large"
    status: ClassVar[int] = 413


class MediaTypeUnsupported(HttpRefusal):
    """The body's type or encoding is not accepted; nothing was changed."""

    code: ClassVar[str] = "media_type_unsupported"
    status: ClassVar[int] = 415


class ExpectationFailed(HttpRefusal):
    """The Expect header asks for something other than 100-continue."""

    code: ClassVar[str] = "expectation_failed"
    status: ClassVar[int] = 417


class HostWrong(HttpRefusal):
    """This service does not answer for the host that the request names."""

    code: ClassVar[str] = "host_wrong"
    status: ClassVar[int] = 421


class CrossSite(HttpRefusal):
    """Requests that another web site makes a browser send are refused."""

    code: ClassVar[str] = "cross_site"
    status: ClassVar[int] = 403


class RateExceeded(HttpRefusal):
    """This caller sends more requests than its rate allows."""

    code: ClassVar[str] = "rate_exceeded"
    status: ClassVar[int] = 429

    def __init__(self, retry_after: float) -> None:
        """`retry_after` is in seconds."""
        super().__init__()
        self.headers = (("Retry-After", whole_seconds(retry_after)),)


def whole_seconds(seconds: float) -> str:
    """Seconds as Retry-After writes them: whole, rounded up so that nobody comes back too early, at least 1."""
    return str(max(1, ceil(seconds)))


_STATUS: dict[type[KikiError], int] = {
    errors.InvalidInput: 400,
    # A policy, plan, playbook or file of values that somebody sent; the service's own settings never reach a request.
    errors.PolicyError: 400,
    errors.PlanError: 400,
    errors.PlaybookError: 400,
    errors.UploadError: 400,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.AccessDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
}


def status_of(error: BaseException) -> int:
    """The HTTP status that this error means; 500 for everything that nobody planned for."""
    if isinstance(error, HttpRefusal):
        return error.status
    for kind in type(error).__mro__:
        if status := _STATUS.get(kind):
            return status
    return 500


def headers_of(error: BaseException) -> Headers:
    """The headers that belong to this error's answer: Retry-After, Allow, WWW-Authenticate."""
    if isinstance(error, HttpRefusal):
        return error.headers
    if isinstance(error, errors.Unauthenticated):
        return (("WWW-Authenticate", 'Bearer realm="kiki"'),)
    retry_after = getattr(error, "retry_after", None)
    if isinstance(retry_after, int | float) and isfinite(retry_after):
        return (("Retry-After", whole_seconds(retry_after)),)
    # A client without any advice would come back at once.
    return (("Retry-After", "1"),) if isinstance(error, errors.Unavailable) else ()


def title_of(status: int) -> str:
    """The status in words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
