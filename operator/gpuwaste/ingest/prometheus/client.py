"""Prometheus, Thanos, Mimir and VictoriaMetrics through `prometheus-api-client`, whose types end here.

That client drops what a store says beside its data (warnings, partial answers) and knows no limits, so both are
read off the response, and a query that is too large is divided.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError
from urllib3.util.retry import Retry

from gpuwaste.ingest.prometheus.matrix import LabelSets, labels_of, read_matrix, series_of
from gpuwaste.ingest.prometheus.store import Query, Sample, Series
from gpuwaste.model.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from gpuwaste.settings.prometheus import PrometheusSettings

__all__ = ["PrometheusStore", "open_store"]

_MAX_POINTS = 10_000
"""Prometheus refuses more than 11,000 evaluations a query."""
_SHARDS = ("0123", "4567", "89ab", "cdef")
_UNAUTHORIZED, _NOT_FOUND = (401, 403), 404
_TOO_MUCH = (400, 413, 422, 503)
_LIMIT_WORDS = ("too many", "exceed", "limit", "maximum", "max ", "timed out", "timeout", "too large", "too long")
_STATUS = re.compile(r"HTTP Status Code (\d+) \((.*)\)", re.DOTALL)
_ERROR_TEXT = re.compile(r'"error"\s*:\s*"((?:[^"\\]|\\.)*)"')
_PARTIAL = re.compile(rb'"isPartial"\s*:\s*true')
_WARNINGS = re.compile(rb'"warnings"\s*:\s*\[(.*?)\]\s*[,}]', re.DOTALL)
_STORES = re.compile(r"rpc error|StoreAPI|vmstorage|partial", re.IGNORECASE)
"""What Thanos and VictoriaMetrics name when they refuse to answer in part."""
_NO_STORES = re.compile(r"No StoreAPIs matched", re.IGNORECASE)
"""Thanos says so where no store has data of the time that was asked for."""
_EDGE_BYTES = 4096
_TEXT = 200

T = TypeVar("T")


class _TooLargeError(Exception):
    """The store will not answer so large a query; a smaller one may do."""


class PrometheusStore:
    """One store; see `MetricStore`.

    Args:
        settings: address and credentials.
        session: carries credentials; a test may give its own.
        base: address of the API where it is not the settings' own.
        whole: whether an answer that is not whole is none. What a store leaves out looks like GPUs that nobody held,
            so it may be shown, with what the store says of it, but never stored.
        clock: Unix seconds, to compare the store's clock with.
    """

    def __init__(
        self,
        settings: PrometheusSettings,
        session: requests.Session,
        *,
        base: str = "",
        whole: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._clock, self._whole = settings, clock, whole
        self._base = base or settings.url
        self._warnings: dict[str, None] = {}
        self._skew_seconds: float | None = None
        self._label_sets = LabelSets()
        session.hooks["response"] += [self._note_warnings, self._as_matrix]
        self._client = PrometheusConnect(
            url=self._base,
            session=session,
            auth=session.auth,
            retry=_retry(settings.retries),
            timeout=settings.timeout_seconds,
        )

    @property
    def address(self) -> str:
        """See `MetricStore.address`."""
        return self._settings.url

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `MetricStore.warnings`."""
        return tuple(self._warnings)

    @property
    def clock_skew_seconds(self) -> float | None:
        """See `MetricStore.clock_skew_seconds`; exact to a second or two."""
        return self._skew_seconds

    def instant(self, query: Query, *, at: datetime) -> list[Sample]:
        """See `MetricStore.instant`."""
        parameters = {"time": f"{at.timestamp():.3f}", **self._parameters()}

        def ask(text: str) -> list[Sample]:
            found = self._asked(lambda: self._client.custom_query(text, params=parameters))
            return [Sample(labels=labels_of(one["metric"]), value=float(one["value"][1])) for one in found]

        try:
            return self._divided(query, ask)
        except _TooLargeError as error:
            raise self._refused(str(error)) from None

    def range(self, query: Query, *, start: datetime, end: datetime, step_seconds: int) -> list[Series]:
        """See `MetricStore.range`."""
        pages = [
            self._page(query, at, until, step_seconds) for at, until in _pages(start, end, step_seconds, _MAX_POINTS)
        ]
        return _joined(pages)

    def close(self) -> None:
        """Let go of connections and of labels; another query makes them anew."""
        self._client.close()
        self._label_sets.clear()

    def _page(self, query: Query, start: datetime, end: datetime, step_seconds: int) -> list[Series]:
        """One page; halves of it where the store says that it is too large even in shards."""
        parameters = self._parameters()

        def ask(text: str) -> list[Series]:
            found = self._asked(
                lambda: self._client.custom_query_range(text, start, end, str(step_seconds), params=parameters)
            )
            return [one if isinstance(one, Series) else series_of(one) for one in found]

        try:
            return self._divided(query, ask)
        except _TooLargeError as error:
            points = int((end - start).total_seconds()) // step_seconds
            if points < 1:
                raise self._refused(str(error)) from None
            middle = start + timedelta(seconds=points // 2 * step_seconds)
            first = self._page(query, start, middle, step_seconds)
            return _joined([first, self._page(query, middle + timedelta(seconds=step_seconds), end, step_seconds)])

    def _divided(self, query: Query, ask: Callable[[str], list[T]]) -> list[T]:
        """Ask once; where that is too large, shard by shard."""
        try:
            return ask(query.text(self._settings.match))
        except _TooLargeError:
            if not query.shard_label:
                raise
        found = []
        for digits in _SHARDS:
            matcher = f'{query.shard_label}=~"(?i)(GPU-|MIG-)?[{digits}].*"'
            found += ask(query.text(self._settings.match, matcher))
        rest = f'{query.shard_label}!~"(?i)(GPU-|MIG-)?[0-9a-f].*"'
        return [*found, *ask(query.text(self._settings.match, rest))]

    def _parameters(self) -> dict[str, str]:
        if self._settings.flavour == "thanos":
            # Downsampled blocks are read where raw ones are gone; an answer without a store says so in a warning.
            partial = "false" if self._whole else "true"
            return {"dedup": "true", "partial_response": partial, "max_source_resolution": "5m"}
        if self._settings.flavour == "victoriametrics":
            return {"nocache": "1", **({"deny_partial_response": "1"} if self._whole else {})}
        return {}

    def _asked(self, call: Callable[[], Any]) -> Any:
        """Run one request of the client and turn what it raises into ours."""
        try:
            return call()
        except PrometheusApiClientException as error:
            raise self._status_error(str(error)) from None
        except requests.exceptions.JSONDecodeError:
            raise self._no_store("its answer is no JSON") from None
        except requests.exceptions.RetryError as error:
            raise UnreachableError(f"{self.address}: cannot answer now: {_reason(error)}; try again later") from error
        except requests.exceptions.Timeout:
            raise self._slow() from None
        except requests.exceptions.SSLError as error:
            raise UnreachableError(f"{self.address}: TLS failed: {_reason(error)}; give its CA with `ca`") from error
        except (requests.exceptions.RequestException, OSError) as error:
            # A refused connection is an error of a subclass.
            if type(_innermost(error)) in (ReadTimeoutError, ConnectTimeoutError):
                raise self._slow() from None
            raise UnreachableError(f"{self.address}: cannot be reached: {_reason(error)}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise self._no_store(f"its answer is not that of a query ({type(error).__name__})") from None

    def _slow(self) -> UnreachableError:
        limit = f"{self._settings.timeout_seconds:g} s"
        return UnreachableError(
            f"{self.address}: did not answer within {limit}; it is slow, or something on the way drops packets"
        )

    def _status_error(self, message: str) -> Exception:
        found = _STATUS.search(message)
        status, body = (int(found[1]), found[2]) if found else (0, message)
        said = _ERROR_TEXT.search(body)
        text = " ".join((said[1] if said else re.sub(r"<[^>]*>|\\n", " ", body.strip("b'\""))).split())[:_TEXT]
        if status in _UNAUTHORIZED:
            return UnreachableError(f"{self.address}: refuses these credentials ({status}): {text}")
        if status == _NOT_FOUND:
            return self._no_store("404")
        if status in _TOO_MUCH and any(word in text.lower() for word in _LIMIT_WORDS):
            return _TooLargeError(text)
        if self._whole and _STORES.search(text):
            return self._in_part(text)
        if status >= 500 or status == 429:  # noqa: PLR2004 (server errors, too many requests)
            return UnreachableError(f"{self.address}: cannot answer now ({status}): {text}")
        return self._refused(f"{status}: {text}")

    def _in_part(self, text: str) -> UnreachableError:
        return UnreachableError(
            f"{self.address}: can answer in part only, of which nothing is stored: {text}; it is asked again later"
        )

    def _refused(self, text: str) -> InputError:
        return InputError(f"refuses the query: {text}", where=self.address, fix="see its limits, or ask for less time")

    def _no_store(self, why: str) -> InputError:
        fix = "give the address below which `/api/v1/query` lies, and the right flavour"
        return InputError(f"does not speak Prometheus' query API: {why}", where=self.address, fix=fix)

    def _note_warnings(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Read off an answer what the client drops: its date, and at its two ends whether it is whole."""
        said = response.headers.get("Date")
        if said:
            with contextlib.suppress(ValueError, TypeError):
                ours = self._clock() - response.elapsed.total_seconds() / 2
                self._skew_seconds = parsedate_to_datetime(said).timestamp() - ours
        head, tail = response.content[:_EDGE_BYTES], response.content[-_EDGE_BYTES:]
        if _PARTIAL.search(head):
            if self._whole:
                raise self._in_part("some of its storage nodes did not answer")
            self._warnings["the answer is partial: some of its storage nodes did not answer"] = None
        found = _WARNINGS.search(tail) or _WARNINGS.search(head)
        if found and found[1].strip():
            text = " ".join(found[1].decode("utf-8", "replace").replace('"', "").split())
            if self._whole and self._settings.flavour == "thanos" and not _NO_STORES.search(text):
                raise self._in_part(text[:_TEXT])
            self._warnings[text[:_TEXT]] = None

    def _as_matrix(self, response: requests.Response, *_: Any, **__: Any) -> requests.Response | None:
        """Have the answer of a range query read series by series; the client only asks it for its JSON."""
        if not response.ok or "/query_range" not in response.url:
            return None
        found = read_matrix(response.content, self._label_sets)
        return None if found is None else _Matrix(response, found)


class _Matrix(requests.Response):
    """An answer that was read already."""

    def __init__(self, answer: requests.Response, series: list[Series]) -> None:
        super().__init__()
        self.__dict__.update(answer.__dict__)
        self._content = b""  # nobody reads it again
        self._series = series

    def json(self, **_: Any) -> Any:
        """What the client takes the series from."""
        return {"data": {"result": self._series}}


class _Bearer(requests.auth.AuthBase):
    """A bearer token, or no credentials at all."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def open_store(settings: PrometheusSettings, *, whole: bool = False) -> PrometheusStore:
    """A store with its credentials read; nothing is sent yet.

    Args:
        settings: address and credentials.
        whole: whether an answer that is not whole is none; for whoever stores what it says.

    Raises:
        InputError: a file of the credentials cannot be read.
    """
    session = requests.Session()
    # Also without a token: requests would else send what a .netrc holds for the host.
    session.auth = _Bearer(_secret(settings.bearer_token_file) if settings.bearer_token_file else "")
    if settings.username and settings.password_file:
        session.auth = (settings.username, _secret(settings.password_file))
    if settings.ca:
        _check_pem(settings.ca)
        session.verify = str(settings.ca)
    if settings.certificate and settings.key:
        for path in (settings.certificate, settings.key):
            _check_pem(path)
        session.cert = (str(settings.certificate), str(settings.key))
    if settings.tenant and settings.flavour != "victoriametrics":
        session.headers["X-Scope-OrgID"] = settings.tenant
    session.headers["User-Agent"] = "gpuwaste"
    return PrometheusStore(settings, session, base=_base(settings), whole=whole)


def _base(settings: PrometheusSettings) -> str:
    """Where the API lies below the given address."""
    url = settings.url
    if settings.flavour == "mimir" and not url.endswith("/prometheus"):
        return f"{url}/prometheus"
    if settings.flavour == "victoriametrics" and settings.tenant and "/select/" not in url:
        return f"{url}/select/{settings.tenant}/prometheus"
    return url


def _secret(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None
    if not text or not text.isprintable():
        raise InputError("must hold one line: the token or password", where=str(path))
    return text


def _check_pem(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None
    if "-----BEGIN" not in text:
        raise InputError("is no PEM file", where=str(path))


def _retry(times: int) -> Retry:
    return Retry(
        total=times,
        backoff_factor=0.5,
        backoff_jitter=0.25,
        status_forcelist=(429, 500, 502, 504),
        allowed_methods=("GET", "POST"),
        respect_retry_after_header=True,
        raise_on_status=True,
        read=0,  # a query that took too long once will do so again
    )


def _innermost(error: BaseException) -> BaseException:
    """What really happened: urllib3 nests its errors."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words, without the names of objects."""
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLError):
        return inner.reason or str(inner)
    text = re.sub(r"^<[^>]*>:?\s*|^HTTPS?Connection\([^)]*\):\s*", "", str(inner))
    return " ".join(text.split())[:_TEXT] or type(inner).__name__


def _pages(start: datetime, end: datetime, step_seconds: int, most: int) -> Iterator[tuple[datetime, datetime]]:
    """Pieces of at most `most` evaluations each, on the same grid."""
    at = start
    while at <= end:
        until = min(end, at + timedelta(seconds=(most - 1) * step_seconds))
        yield at, until
        at = until + timedelta(seconds=step_seconds)


def _joined(pages: list[list[Series]]) -> list[Series]:
    """Pieces of the same series, one after the other in time, as one."""
    if len(pages) == 1:
        return pages[0]
    parts: dict[tuple[tuple[str, str], ...], list[Series]] = {}
    for page in pages:
        for series in page:
            parts.setdefault(tuple(sorted(series.labels.items())), []).append(series)
    return [
        Series(
            labels=found[0].labels,
            times_s=np.concatenate([one.times_s for one in found]),
            values=np.concatenate([one.values for one in found]),
        )
        for found in parts.values()
    ]
