"""Why a release is refused: what, where, why and what to do about it."""

from __future__ import annotations


class ReleaseError(Exception):
    """Base of the refusals; printed in four parts, like every error of this project."""

    def __init__(self, what: str, *, where: str, why: str, fix: str) -> None:
        super().__init__("\n  ".join([what, f"at {where}", *why.splitlines(), fix]))


class UnknownPackageError(ReleaseError):
    """No package has this name."""


class VersionError(ReleaseError):
    """The version is not one, or it does not follow the one before."""


class ChangelogError(ReleaseError):
    """The changelog does not say what is new."""


class SiblingError(ReleaseError):
    """Packages of this repository could not be installed together after the release."""


class TreeError(ReleaseError):
    """The state of the repository does not allow a release."""
