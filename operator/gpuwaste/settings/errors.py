"""Everything that is wrong with a settings file, so that it can be mended in one go."""

from __future__ import annotations

from gpuwaste.model.errors import InputError

__all__ = ["SettingsError"]


class SettingsError(InputError):
    """A file of settings is refused.

    Args:
        problems: one line each, which names the field; at least one.
        where: the file.
    """

    def __init__(self, problems: tuple[str, ...], *, where: str) -> None:
        """Say all in one line; `lines` has one a problem."""
        self.problems = problems
        super().__init__("; ".join(problems), where=where)

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person sees: the file first, then a line a problem; one line where there is one problem."""
        if len(self.problems) == 1:
            return (str(self),)
        return (f"{self.where}: {len(self.problems)} settings are wrong", *(f"  {one}" for one in self.problems))
