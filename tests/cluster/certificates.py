"""Keys and certificates of one cluster, made afresh at each start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Authority", "KeyPair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """Where a private key and its certificate chain lie, both PEM."""

    key: Path
    certificate: Path


class Authority:
    """A certificate authority of one cluster; its own certificate lies at `certificate`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA(organization_name="gpuwaste tests")
        folder.mkdir(mode=0o700)
        self.certificate = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str, *, common_name: str, group: str | None = None, hosts: Sequence[str] = ()) -> KeyPair:
        """Make a key and a certificate, good for a server at `hosts` and for a client.

        The API server takes `common_name` as the client's user name and `group` as its group.
        """
        # Without any name the library writes an empty critical extension, which Go refuses.
        leaf = self._authority.issue_cert(
            *(hosts or ("client.invalid",)), common_name=common_name, organization_name=group
        )
        pair = KeyPair(key=self._folder / f"{name}.key", certificate=self._folder / f"{name}.crt")
        leaf.private_key_pem.write_to_path(pair.key)
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        pair.key.chmod(0o600)
        return pair
