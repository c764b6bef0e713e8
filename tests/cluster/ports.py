"""Free TCP ports on loopback."""

from __future__ import annotations

import socket

__all__ = ["free_port"]


def free_port(address: str = "127.0.0.1") -> int:
    """A port of `address` that nothing listened on a moment ago.

    Another program may take it before its user does, so whoever uses it has to be ready to ask again.
    """
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])
