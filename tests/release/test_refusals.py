"""A release that must not happen: nothing changes, and the message says why."""

from __future__ import annotations

import pytest

from .repository import Repository, changelog, metadata


def refused(repository: Repository, *arguments: str) -> str:
    before = repository.state()
    done = repository.release(*arguments)
    assert repository.state() == before
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def test_an_unknown_package(repository: Repository) -> None:
    assert refused(repository, "bump", "layer", "0.2.0") == (
        "UnknownPackageError: there is no package 'layer'\n"
        "  at packages/\n"
        "  the packages are base, layers\n"
        "  Did you mean 'layers'?\n"
    )


@pytest.mark.parametrize("version", ["two", "0.2.0+here", "v0.2.0", "00.2"])
def test_what_is_not_a_version(repository: Repository, version: str) -> None:
    assert refused(repository, "bump", "layers", version) == (
        f"VersionError: {version!r} is not a version that can be released\n"
        "  at layers 0.1.0\n"
        "  a version reads like 0.2.0, 0.2.1 or 1.0.0rc1\n"
        "  Write the version in this form.\n"
    )


@pytest.mark.parametrize("version", ["0.0.9", "0.1.0rc1"])
def test_a_version_that_goes_back(repository: Repository, version: str) -> None:
    assert refused(repository, "bump", "layers", version) == (
        f"VersionError: {version} does not follow 0.1.0\n"
        "  at layers 0.1.0\n"
        "  a release goes upwards, from 0.1.0\n"
        "  Choose a higher version.\n"
    )


def test_a_version_that_is_out(repository: Repository) -> None:
    repository.release("bump", "layers", "0.1.0")
    assert refused(repository, "bump", "layers", "0.1.0") == (
        "TreeError: layers 0.1.0 has been released\n"
        "  at layers 0.1.0\n"
        "  the tag layers-v0.1.0 exists\n"
        "  Choose a higher version; a released one is never changed.\n"
    )


def test_a_changelog_without_an_entry(repository: Repository) -> None:
    repository.commit("packages/layers/CHANGELOG.md", changelog("layers") + "## 0.0.1 (2026-01-01)\n\n- Old.\n")
    assert refused(repository, "bump", "layers", "0.2.0") == (
        "ChangelogError: the changelog says nothing about 0.2.0\n"
        "  at packages/layers/CHANGELOG.md\n"
        "  there is no entry under '## Unreleased'\n"
        "  Describe there what changes for a user.\n"
    )


def test_siblings_whose_range_excludes_the_version(repository: Repository) -> None:
    repository.commit("packages/export/pyproject.toml", metadata("export", "0.3.0", "Base ~=0.1.0"))
    assert refused(repository, "bump", "base", "0.2.0") == (
        "SiblingError: base 0.2.0 would not go together with its siblings\n"
        "  at base 0.1.0\n"
        "  export 0.3.0 needs Base ~=0.1.0, and base would be 0.2.0\n"
        "  layers 0.1.0 needs base>=0.1,<0.2, and base would be 0.2.0\n"
        "  Change these ranges in the packages that state them, run the tests, and release again.\n"
    )


def test_a_package_whose_own_range_excludes_a_sibling(repository: Repository) -> None:
    repository.commit("packages/layers/pyproject.toml", metadata("layers", "0.1.0", "base>=0.2,<0.3"))
    assert refused(repository, "bump", "layers", "0.2.0") == (
        "SiblingError: layers 0.2.0 would not go together with its siblings\n"
        "  at layers 0.1.0\n"
        "  layers 0.1.0 needs base>=0.2,<0.3, and base would be 0.1.0\n"
        "  Change these ranges in the packages that state them, run the tests, and release again.\n"
    )


def test_a_tree_with_changes(repository: Repository) -> None:
    (repository.path / "note").write_text("not committed")
    assert refused(repository, "bump", "layers", "0.2.0") == (
        "TreeError: the working tree has changes that are not committed\n"
        "  at note\n"
        "  a release is made of committed files only\n"
        "  Commit them, or put them aside.\n"
    )


def test_a_tag_that_does_not_fit_the_metadata(repository: Repository) -> None:
    assert refused(repository, "tagged", "layers-v0.9.0") == (
        "VersionError: the tag layers-v0.9.0 does not name the version of layers\n"
        "  at packages/layers/pyproject.toml\n"
        "  the version there is 0.1.0\n"
        "  Make tags with scripts/release.py bump.\n"
    )
