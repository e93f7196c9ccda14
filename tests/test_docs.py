"""The documentation: its links lead somewhere, its site builds, and it asks nothing of other machines."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Elements of a page whose address is fetched when the page is opened."""
NOT_FETCHED = ("canonical", "next", "prev", "edit")
"""Relations of a `link` element that only name a page."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_a_page_leads_to_a_file(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8"))]
    files = [target for target in targets if target and "://" not in target]
    assert [target for target in files if not (page.parent / target).exists()] == []


def test_each_file_of_the_results_is_linked_from_a_page() -> None:
    results = ROOT / "docs" / "results"
    linked = set()
    for page in PAGES:
        targets = LINK.findall(page.read_text(encoding="utf-8"))
        linked |= {(page.parent / target.partition("#")[0]).resolve() for target in targets}
    files = {path.resolve() for path in results.rglob("*") if path.is_file()}
    assert files - linked == set()


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## \[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == project["version"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        if not _installed(package):
            pytest.skip(f"{package} is not installed: it comes with the extra docs")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: it silences warnings before --strict has counted them.
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def test_the_site_builds_without_a_warning_and_has_the_public_functions(site: Path) -> None:
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="compressor.load"' in page
    assert 'id="compressor.load_mixture"' in page
    assert "normalises" in page


def test_a_page_of_the_site_fetches_nothing_from_other_machines(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert pages
    assert {page.relative_to(site): found for page in pages if (found := _fetched(page))} == {}


def _fetched(page: Path) -> list[str]:
    """List the addresses on other machines that opening a page would ask for."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            named = dict(attrs)
            address = named.get(LOADS.get(tag, "")) or ""
            if address.startswith(("http:", "https:", "//")) and named.get("rel") not in NOT_FETCHED:
                found.append(address)

    Reader().feed(page.read_text(encoding="utf-8"))
    return found
