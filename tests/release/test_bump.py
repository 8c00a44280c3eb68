"""A release that goes through."""

from __future__ import annotations

from datetime import UTC, datetime

from .repository import Repository, changelog


def test_a_bump_sets_the_version_dates_the_changelog_and_tags(repository: Repository) -> None:
    before = datetime.now(UTC).date()
    done = repository.release("bump", "layers", "0.2.0")
    dates = {before, datetime.now(UTC).date()}

    assert done.returncode == 0, done.stderr
    assert 'version = "0.2.0"\n' in repository.read("packages/layers/pyproject.toml")
    assert repository.read("packages/layers/CHANGELOG.md") in {
        f"# Changelog of layers\n\n## Unreleased\n\n## 0.2.0 ({date})\n\n- A first layer.\n" for date in dates
    }
    assert repository.git("tag", "--points-at", "HEAD") == "layers-v0.2.0\n"
    assert repository.git("log", "-1", "--format=%s") == "Release layers 0.2.0\n"
    assert repository.git("show", "--name-only", "--format=", "HEAD").split() == [
        "packages/layers/CHANGELOG.md",
        "packages/layers/pyproject.toml",
    ]
    assert repository.git("status", "--porcelain") == ""
    assert done.stdout == (
        "Released layers 0.2.0:\n"
        "  packages/layers/pyproject.toml\n"
        "  packages/layers/CHANGELOG.md\n"
        "  tag layers-v0.2.0\n"
        "Publish it with: git push origin HEAD layers-v0.2.0\n"
    )


def test_only_the_named_package_changes(repository: Repository) -> None:
    untouched = repository.read("packages/base/pyproject.toml"), repository.read("packages/base/CHANGELOG.md")
    repository.release("bump", "layers", "0.2.0")
    assert untouched == (repository.read("packages/base/pyproject.toml"), repository.read("packages/base/CHANGELOG.md"))


def test_the_first_release_may_keep_the_version_of_development(repository: Repository) -> None:
    done = repository.release("bump", "base", "0.1.0")
    assert done.returncode == 0, done.stderr
    assert repository.git("tag", "--points-at", "HEAD") == "base-v0.1.0\n"


def test_entries_of_earlier_releases_stay_below(repository: Repository) -> None:
    repository.release("bump", "layers", "0.1.1")
    text = repository.read("packages/layers/CHANGELOG.md")
    repository.commit("packages/layers/CHANGELOG.md", text.replace("## Unreleased\n", "## Unreleased\n\n- More.\n"))
    done = repository.release("bump", "layers", "0.1.2")
    assert done.returncode == 0, done.stderr
    lines = repository.read("packages/layers/CHANGELOG.md").splitlines()
    found = [line.split(" (")[0] for line in lines if line.startswith(("##", "-"))]
    assert found == ["## Unreleased", "## 0.1.2", "- More.", "## 0.1.1", "- A first layer."]


def test_a_dry_run_makes_every_check_and_changes_nothing(repository: Repository) -> None:
    before = repository.state()
    done = repository.release("bump", "layers", "0.2.0", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert repository.state() == before
    assert done.stdout == (
        "Would release layers 0.2.0:\n"
        "  packages/layers/pyproject.toml\n"
        "  packages/layers/CHANGELOG.md\n"
        "  tag layers-v0.2.0\n"
    )
    repository.commit("packages/layers/CHANGELOG.md", changelog("layers"))
    assert repository.release("bump", "layers", "0.2.0", "--dry-run").returncode == 1


def test_a_tag_names_its_package(repository: Repository) -> None:
    done = repository.release("tagged", "layers-v0.1.0")
    assert (done.returncode, done.stdout) == (0, "layers\n")
