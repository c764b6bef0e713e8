"""What a person chooses for an export, and what the export answers besides the file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from gpuwaste.focus.columns import SERVICE_SUBCATEGORIES, Version
from gpuwaste.focus.methods import DEFAULT_METHOD, METHODS, Method
from gpuwaste.model.errors import InputError

__all__ = ["ExportOptions", "Finding", "Grain", "Grouping"]

Grain = Literal["hour", "day"]
Grouping = Literal["namespace", "workload", "team"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The choices of one export.

    Attributes:
        method: how a charge is divided.
        grain: how long a charge lasts.
        grouping: who receives the parts.
        version: the FOCUS version of the file.
        provider: who provides the nodes; on premises the name of the platform team.
        account_id: the account that is charged; empty for the cluster's name.
        account_name: its display name; empty for the id.
        service_name: the name of what is charged.
        service_category: its FOCUS category, `Compute` or `AI and Machine Learning`.
        service_subcategory: a subcategory of that.
        currency: the one currency to export; empty where the ledger has only one.
    """

    method: Method = METHODS[DEFAULT_METHOD]
    grain: Grain = "hour"
    grouping: Grouping = "namespace"
    version: Version = "1.3"
    provider: str = "Platform"
    account_id: str = ""
    account_name: str = ""
    service_name: str = "GPU Nodes"
    service_category: str = "Compute"
    service_subcategory: str = "Virtual Machines"
    currency: str = ""

    def __post_init__(self) -> None:
        """Refuse what a FOCUS file cannot hold.

        Raises:
            InputError: a text that is not ASCII, an empty provider, or a category that FOCUS does not know.
        """
        for field in fields(self):
            text = getattr(self, field.name)
            if isinstance(text, str) and not (text.isascii() and text.isprintable()):
                raise InputError(
                    f"must hold printable ASCII only, and is {text!r}",
                    where=field.name,
                    fix="the official FOCUS validator refuses other characters in text columns",
                )
        if not self.provider.strip():
            raise InputError("must not be empty", where="provider")
        if self.service_subcategory not in SERVICE_SUBCATEGORIES.get(self.service_category, ()):
            known = "; ".join(f"{name}: {', '.join(subs)}" for name, subs in SERVICE_SUBCATEGORIES.items())
            raise InputError(
                f"{self.service_category!r} / {self.service_subcategory!r} is no category of a GPU service",
                where="service_category",
                fix=f"use one of {known}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a reader of the export must know: what, where, and what to do."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}"
        return f"{line}; {self.fix}" if self.fix else line
