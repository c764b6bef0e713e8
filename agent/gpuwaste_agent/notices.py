"""Notices that the node is about to be taken away, from its cloud's metadata service.

A spot node gets two minutes (AWS) or half a minute (Google, Azure), and no promise that its pods are ended in order.
The node's conditions and taints would tell it too, but reading those takes an API token that the agent does not have.

- AWS: `GET /latest/meta-data/spot/instance-action`, 404 until there is a notice; with a session token (IMDSv2).
- Google: `GET /computeMetadata/v1/instance/preempted` says TRUE or FALSE.
- Azure: `GET /metadata/scheduledevents` lists events of kind Preempt and Terminate, by names of machines.
"""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CLOUDS", "NoticeError", "NoticeSource", "NoticeWatcher", "ask_notice"]

CLOUDS = ("aws", "gcp", "azure")
# All three clouds answer at the same link-local address.
_ADDRESS = "http://169.254.169.254"
_TIMEOUT_SECONDS = 2.0
_EVERY_SECONDS = 5.0
_MOST_BYTES = 1 << 20
_ENDINGS = ("Preempt", "Terminate")


class NoticeError(Exception):
    """The metadata service cannot be asked, or answers something else; the message says what to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSource:
    """Whose metadata service, and where."""

    cloud: str
    url: str = _ADDRESS


def _request(source: NoticeSource, path: str, headers: Mapping[str, str], *, method: str = "GET") -> tuple[int, str]:
    """Status and text of an answer; never by a proxy, which would ask for another machine."""
    url = urlsplit(source.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, url.path.rstrip("/") + path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise NoticeError(f"the metadata service at {source.url} does not answer ({error})") from error
    finally:
        connection.close()


def _expect(source: NoticeSource, status: int) -> None:
    if status != http.client.OK:
        raise NoticeError(f"the metadata service at {source.url} answers {status}: is it one of {source.cloud}?")


def _aws(source: NoticeSource) -> str:
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    status, token = _request(source, "/latest/api/token", headers, method="PUT")
    headers = {"X-aws-ec2-metadata-token": token} if status == http.client.OK else {}
    status, text = _request(source, "/latest/meta-data/spot/instance-action", headers)
    if status == http.client.NOT_FOUND:
        return ""
    _expect(source, status)
    notice = json.loads(text)
    return f"{notice['action']} at {notice['time']}"


def _gcp(source: NoticeSource) -> str:
    status, text = _request(source, "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    _expect(source, status)
    return "preempted" if text.strip().upper() == "TRUE" else ""


def _azure(source: NoticeSource) -> str:
    headers = {"Metadata": "true"}
    status, text = _request(source, "/metadata/scheduledevents?api-version=2020-07-01", headers)
    _expect(source, status)
    events = [event for event in json.loads(text).get("Events", ()) if event.get("EventType") in _ENDINGS]
    if not events:
        return ""
    status, name = _request(source, "/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
    for event in events:
        # A scale set tells every machine of the events of all.
        if status != http.client.OK or name.strip() in event.get("Resources", ()):
            return f"{event['EventType'].lower()} at {event.get('NotBefore') or 'any moment'}"
    return ""


_ASK = {"aws": _aws, "gcp": _gcp, "azure": _azure}


def ask_notice(source: NoticeSource) -> str:
    """Ask once; returns what is to happen to this node, or an empty string.

    Raises:
        NoticeError: The service does not answer, or not as that cloud's does.
    """
    try:
        return _ASK[source.cloud](source)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoticeError(f"the metadata service at {source.url} answers something else ({error})") from error


class NoticeWatcher:
    """Asks every few seconds in a thread of its own.

    Attributes:
        notice: What is to happen to this node; empty as long as nothing is.
        problem: Why the service cannot be asked; empty where it can.
    """

    def __init__(self, ask: Callable[[], str], *, every_seconds: float = _EVERY_SECONDS) -> None:
        """Take how to ask, and how often."""
        self._ask = ask
        self._every_seconds = every_seconds
        self.notice = ""
        self.problem = ""

    def look(self) -> None:
        """Ask once; a notice stays one, though the service forgets it."""
        try:
            self.notice = self._ask() or self.notice
        except NoticeError as error:
            self.problem = str(error)
        else:
            self.problem = ""

    def start(self, stop: threading.Event) -> None:
        """Go on asking until the agent stops."""

        def run() -> None:
            self.look()
            while not stop.wait(self._every_seconds):
                self.look()

        threading.Thread(target=run, name="spot-notice", daemon=True).start()
