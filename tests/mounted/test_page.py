"""The web page in a real browser, against a real daemon: what people without a shell do with it.

What a view must show comes from the folders that the disks were made from, never from the API. Each
test's visitor fails it, too, for what goes wrong unseen (tests/mounted/browser.py).
"""

import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

if find_spec("playwright") is None and os.environ.get("RESTOREFS_REQUIRE_ALL") != "1":
    pytest.skip("not installed: playwright", allow_module_level=True)

from playwright.sync_api import Browser, Locator, Page, expect

from tests.mounted.browser import Visitor, chromium, low_contrast, nameless, wider_than_screen
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, restorefs
from tests.mounted.damaged_disks import damaged
from tests.mounted.disks import Sample, qcow2
from tests.mounted.page_disks import ANNA, HOSTILE, MANY, STAFF, PageSample
from tests.tools import wait_until

SCREENSHOT = Path(__file__).parents[2] / "docs" / "page.png"
LIMIT = 300_000
HURT = "backup-hurt-1700000000"
FULL, LATER = f"backup/{Sample.full}", f"backup/{Sample.incremental}"
ROOT = f"files/{Sample.full}/0/part3"
FILES = f"files/{PageSample.files}/0/part1"
ENCRYPTED = f"WARNING {Sample.full}/disk0: part5: LUKS is encrypted"
Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageSample]:
    folder = tmp_path_factory.mktemp("page")
    yield PageSample(folder, sample)
    shutil.rmtree(folder)


@pytest.fixture
def daemon(serve: Serve, pages: PageSample) -> Daemon:
    return serve("--images", pages.repository, "--listen", "127.0.0.1:0", "--listen-insecure")


@pytest.fixture
def visit(browser: Browser, serve: Serve, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Have somebody look at a daemon's page (the fixture's), and leave before it ends."""
    with ExitStack() as stack:

        def visit(daemon: Daemon | None = None, **options: object) -> Visitor:
            daemon = daemon or request.getfixturevalue("daemon")
            (url,) = daemon.status()["listening"]
            visitor = Visitor(browser, url, **options)
            stack.callback(visitor.close)
            return visitor

        yield visit


def row(page: Page, name: str) -> Locator:
    """The row of a list whose name begins so."""
    return page.get_by_role("row", name=re.compile("^" + re.escape(name) + "(,|$)"))


def entry(page: Page, name: str) -> Locator:
    return page.get_by_role("grid").get_by_role("link", name=name, exact=True)


def counted(page: Page, text: str) -> Locator:
    """What a list says of how many there are; a screen reader is told it elsewhere, too."""
    return page.get_by_role("main").get_by_text(text, exact=True)


def taken(page: Page, button: Locator, folder: Path) -> Path:
    """Click what downloads, and return the file."""
    with page.expect_download() as download:
        button.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    assert download.value.failure() is None
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- finding a file, and taking it back --------------------------------------------------------


def test_a_file_is_found_by_clicking_and_comes_back_whole(visit, sample, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.go()
    page.get_by_role("link", name="web").click()
    expect(page.get_by_role("heading", name="November 2023")).to_be_visible()
    page.get_by_role("link", name="22:13").last.click()  # the newest is first
    part = page.get_by_role("link", name="part3")
    expect(part).to_contain_text("root")
    expect(part).to_contain_text("ext4")
    expect(part).to_contain_text("32 MiB")
    part.click()
    entry(page, "etc").click()
    entry(page, "hostname").click()
    dialog = page.get_by_role("dialog", name="hostname")
    expect(dialog.locator("pre")).to_have_text("web\n")
    found = taken(page, dialog.get_by_role("link", name="Download"), tmp_path)
    assert found.name == "hostname"
    assert sha256(found) == sha256(sample.sources.web / "etc" / "hostname")

    # What the address says is what one comes back to.
    page.reload()
    expect(page.get_by_role("dialog", name="hostname").locator("pre")).to_have_text("web\n")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    where = page.get_by_role("navigation", name="Where you are")
    expect(where).to_have_text(
        re.compile("All machines.*web.*2023-11-14 22:13.*Disk 0.*part3.*etc")
    )
    where.get_by_role("link", name="part3").click()
    expect(entry(page, "var")).to_be_visible()
    page.go_back()
    expect(entry(page, "hostname")).to_be_visible()
    page.go_forward()
    expect(entry(page, "var")).to_be_visible()


def test_a_large_file_comes_back_whole(visit, sample, tmp_path):
    visitor = visit()
    visitor.go(f"files/{Sample.full}/1")
    page = visitor.page
    entry(page, "big").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("24 MiB (25,165,824 bytes)")
    expect(dialog).to_contain_text("no preview of this kind of file")
    found = taken(page, dialog.get_by_role("link", name="Download"), tmp_path)
    assert sha256(found) == sha256(sample.sources.data / "big")


def test_a_selection_comes_as_a_zip(visit, sample, tmp_path):
    visitor = visit()
    visitor.go(ROOT)
    page = visitor.page
    row(page, "etc").get_by_role("checkbox").check()
    row(page, "var").get_by_role("checkbox").check()
    expect(page.get_by_text("2 entries of", exact=False).first).to_be_visible()
    found = taken(page, page.get_by_role("link", name="Download as zip"), tmp_path)
    with zipfile.ZipFile(found) as archive:
        assert archive.testzip() is None
        files = {i.filename: archive.read(i) for i in archive.infolist() if not i.is_dir()}
    web = sample.sources.web
    assert files == {
        str(path.relative_to(web)): path.read_bytes()
        for name in ("etc", "var")
        for path in (web / name).rglob("*")
        if path.is_file()
    }


def test_a_large_selection_comes_as_a_zip(visit, tmp_path):
    """More than fits into an address."""
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/many?q=entry-0004")
    expect(counted(page, "100 entries")).to_be_visible()
    page.get_by_role("searchbox").fill("entry-000")
    expect(counted(page, "1,000 entries")).to_be_visible()
    page.get_by_role("checkbox", name="Select all").check()
    expect(counted(page, "1,000 entries of 1,000 selected")).to_be_visible()
    found = taken(page, page.get_by_role("button", name="Download as zip"), tmp_path)
    with zipfile.ZipFile(found) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [f"entry-{number:06d}.log" for number in range(1000)]
        assert archive.read("entry-000007.log") == b"x"


# --- what is selected --------------------------------------------------------------------------


def selected(page: Page, text: str) -> None:
    """Expect what the list says of its selection."""
    expect(counted(page, text)).to_be_visible()


def names_in(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as found:
        assert found.testzip() is None
        return sorted(found.namelist())


def test_a_range_and_all_but_one_are_true_in_a_long_list(visit):
    visitor = visit()
    page = visitor.page
    keys = page.keyboard
    visitor.go(f"{FILES}/many")
    expect(row(page, "entry-000000.log")).to_be_visible()
    keys.press("Home")
    keys.press("Space")
    selected(page, "1 entry of 100,000 selected")
    keys.press("Shift+End")
    selected(page, "100,000 entries of 100,000 selected")
    expect(page.get_by_role("checkbox", name="Select all")).to_be_checked()
    expect(page.get_by_role("link", name="Download as zip")).to_be_visible()
    keys.press("Escape")
    selected(page, "100,000 entries")
    keys.press("Control+a")
    keys.press("Space")
    selected(page, "99,999 entries of 100,000 selected")
    expect(row(page, f"entry-{MANY - 1:06d}.log")).to_have_attribute("aria-selected", "false")
    expect(page.get_by_text("At most 2,000 can be downloaded at once")).to_be_visible()
    keys.press("Space")
    selected(page, "100,000 entries of 100,000 selected")
    # Whatever has been looked at, there is no hole in it.
    keys.press("ArrowUp")
    keys.press("Shift+Home")
    selected(page, "99,999 entries of 100,000 selected")
    for part in (0.5, 0.25):
        page.get_by_role("grid").evaluate(
            "(grid, part) => grid.scrollTo(0, grid.scrollHeight * part)", part
        )
        expect(page.locator(".cell-coming")).to_have_count(0)
        expect(page.locator('.grid-body [role="row"][aria-selected="false"]')).to_have_count(0)


def test_a_filter_leaves_only_what_it_shows_selected(visit, tmp_path):
    visitor = visit()
    page = visitor.page
    filter_ = page.get_by_role("searchbox", name="Filter by name")
    visitor.go(f"{FILES}/many")
    row(page, "entry-000001.log").get_by_role("checkbox").check()
    row(page, "entry-000007.log").get_by_role("checkbox").check()
    selected(page, "2 entries of 100,000 selected")
    filter_.fill("00007")
    selected(page, "1 entry of 11 selected, 1 no longer selected")
    expect(row(page, "entry-000007.log")).to_have_attribute("aria-selected", "true")
    row(page, "entry-000073.log").get_by_role("checkbox").check()
    selected(page, "2 entries of 11 selected")
    found = taken(page, page.get_by_role("link", name="Download as zip"), tmp_path)
    assert names_in(found) == ["entry-000007.log", "entry-000073.log"]
    # Another order leaves them selected, wherever they are.
    page.get_by_role("button", name="Name").click()
    expect(page.get_by_role("grid").get_by_role("row").nth(1)).to_contain_text("entry-000079")
    selected(page, "2 entries of 11 selected")
    expect(row(page, "entry-000073.log")).to_have_attribute("aria-selected", "true")
    page.get_by_role("checkbox", name="Select all").check()
    selected(page, "11 entries of 11 selected")
    filter_.fill("77")
    selected(page, "3,691 entries, 11 no longer selected")
    page.get_by_role("checkbox", name="Select all").check()
    expect(page.get_by_text("At most 2,000 can be downloaded at once")).to_be_visible()


def test_all_but_one_come_as_a_zip(visit, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{ROOT}/etc")
    expect(row(page, "hostname")).to_be_visible()
    visitor.go(f"{ROOT}/var/log")
    expect(row(page, "app.0.log")).to_be_visible()
    page.keyboard.press("Control+a")
    row(page, "app.11.log").get_by_role("checkbox").uncheck()
    selected(page, "99 entries of 100 selected")
    found = taken(page, page.get_by_role("link", name="Download as zip"), tmp_path)
    assert names_in(found) == sorted(f"app.{n}.log" for n in range(100) if n != 11)


# --- searching, versions -----------------------------------------------------------------------


def test_a_search_finds_what_is_below(visit):
    visitor = visit()
    visitor.go(ROOT)
    page = visitor.page
    entry(page, "var").click()
    page.get_by_role("link", name="Search below").click()
    page.get_by_role("searchbox", name="Name").fill("app.4?.log")
    page.keyboard.press("Enter")
    expect(page.get_by_text("10 matches in", exact=False).first).to_be_visible()
    names = page.locator("tbody th a").all_text_contents()
    assert sorted(names) == [f"app.4{n}.log" for n in range(10)]
    page.get_by_role("link", name="app.43.log").click()
    expect(page.get_by_role("dialog").locator("pre")).to_have_text("line 43\n" * 431)


def test_a_search_can_be_stopped(visit, daemon):
    visitor = visit()
    page = visitor.page
    # An answer that never ends, as of a disk that takes its time.
    page.route(re.compile("/search[?]"), lambda route: None)
    visitor.go(f"search/{Sample.full}/0/part3?pattern=*")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped: 0 matches so far.").first).to_be_visible()
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_versions_are_side_by_side(visit, sample, tmp_path):
    visitor = visit()
    visitor.go(f"{ROOT}/etc")
    page = visitor.page
    entry(page, "hostname").click()
    page.get_by_role("link", name="All versions").click()
    expect(page.get_by_text("2 backups have it (2 versions), of 2 backups.")).to_be_visible()
    newer = page.get_by_role("row").filter(has_text="2023-11-15 22:13")
    expect(newer).to_contain_text("changed")
    expect(newer).to_contain_text("12 bytes")
    diff = page.get_by_role("region", name="Changed lines")
    expect(diff.locator(".removed")).to_contain_text("web")
    expect(diff.locator(".added")).to_contain_text("web-renamed")
    for time_, source in (("11-14", sample.sources.web), ("11-15", sample.sources.changed)):
        link = page.get_by_role("link", name=f"Download the one of 2023-{time_} 22:13")
        assert sha256(taken(page, link, tmp_path)) == sha256(source / "etc" / "hostname")

    visitor.go("versions/web/0/part3/etc/removed-later")
    expect(page.get_by_text("1 backup has it (1 version), of 2 backups.")).to_be_visible()
    without = page.get_by_role("row").filter(has_text="2023-11-15 22:13")
    expect(without).to_contain_text("not in this backup")
    expect(page.get_by_role("row").nth(1)).to_contain_text("2023-11-15")
    expect(page.get_by_role("radio")).to_have_count(0)


def test_versions_of_a_folder_are_not_compared(visit):
    visitor = visit()
    visitor.go("versions/web/0/part3/etc")
    page = visitor.page
    expect(page.get_by_text("2 backups have it", exact=False)).to_be_visible()
    expect(page.get_by_role("radio")).to_have_count(0)
    expect(page.get_by_role("columnheader", name="Old")).to_have_count(0)
    expect(page.get_by_role("region", name="Comparison")).to_have_count(0)
    page.get_by_role("row").filter(has_text="11-14").get_by_role("link").click()
    expect(entry(page, "removed-later")).to_be_visible()


def test_the_machines_are_filtered_and_gone_to_by_keyboard(visit):
    visitor = visit()
    page = visitor.page
    keys = page.keyboard
    visitor.go()
    expect(page.get_by_text("Newest backup", exact=True)).to_be_visible()
    filter_ = page.get_by_role("searchbox", name="Filter machines by name")
    main = page.get_by_role("main")
    keys.press("/")
    keys.press("ArrowDown")
    expect(main.get_by_role("link").first).to_be_focused()
    keys.press("ArrowDown")
    expect(main.get_by_role("link").nth(1)).to_be_focused()
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    expect(filter_).to_be_focused()
    keys.type("we")
    keys.press("Enter")  # at once: what is typed counts, not what is still shown
    expect(main.get_by_role("link")).to_have_count(1)
    expect(page.get_by_role("link", name="web")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("heading", name="web")).to_be_focused()


# --- what cannot be read -----------------------------------------------------------------------


def test_what_cannot_be_read_says_why_and_what_to_do(visit, daemon):
    daemon.expect(ENCRYPTED)
    visitor = visit()
    page = visitor.page
    visitor.go(FULL)
    luks = page.get_by_role("listitem").filter(has_text="part5")
    expect(luks).to_contain_text("encrypted")
    expect(luks).to_contain_text("unlock it there with its passphrase or key")
    page.get_by_text("other parts without files").click()
    expect(page.get_by_role("listitem").filter(has_text="part4").first).to_contain_text("swap")

    visitor.go(f"backup/{PageSample.files}")
    btrfs = page.get_by_role("listitem").filter(has_text="part2")
    expect(btrfs).to_contain_text(re.compile("btrfs", re.IGNORECASE))
    expect(btrfs).to_contain_text("pool")
    expect(btrfs).to_contain_text("Restore the whole disk")

    visitor.go(f"files/{Sample.full}/0/part5")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("It is encrypted")
    expect(alert).to_contain_text("part5: LUKS is encrypted, and its key is not known")
    where = page.get_by_role("navigation", name="Where you are")
    expect(where.get_by_role("link", name="2023-11-14 22:13")).to_be_visible()
    visitor.go(FULL)  # where what has failed on the disk is told once
    expect(luks).to_contain_text("encrypted")
    expect(page.get_by_text("its key is not known")).to_have_count(1)
    visitor.go(f"{ROOT}/no/such/folder")
    expect(alert).to_contain_text("It is not there")
    visitor.go("backup/backup-that-is-not-there")
    expect(alert).to_contain_text("there is no backup 'backup-that-is-not-there'")


def test_a_missing_image_says_so_until_it_is_back(visit, daemon, pages):
    daemon.expect(f"ERROR {PageSample.gone}/disk0: ")
    visitor = visit()
    page = visitor.page
    pages.image.unlink()
    try:
        visitor.go(f"backup/{PageSample.gone}")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("No such file")
        visitor.go("attached")
        failed = page.get_by_role("listitem").filter(has_text=PageSample.gone)
        expect(failed).to_contain_text("No such file")
        page.go_back()
        expect(alert).to_be_visible()
    finally:
        pages.restore()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("link", name="part1")).to_be_visible()


# --- hostile guests ----------------------------------------------------------------------------


def test_nothing_from_a_guest_ever_runs(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/hostile")
    expect(entry(page, "evil.html")).to_be_visible()
    for name in ("evil.html", "evil.svg", "html-as.png", "svg-as.jpg"):
        entry(page, name).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("pre")).to_have_text(HOSTILE[name.encode()].decode())
        expect(dialog.locator("img, svg:not(.icon), iframe, object, embed")).to_have_count(0)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    # Nor where somebody opens the API's own addresses in a window.
    (mount,) = {m for url in visitor.asked for m in re.findall(r"/restore/([^/?]+)/files", url)}
    for name in ("evil.html", "evil.svg", "html-as.png"):
        other = page.context.new_page()
        other.goto(f"{visitor.url}/api/v1/restore/{mount}/preview?path=/part1/hostile/{name}")
        assert other.evaluate("document.contentType") == "text/plain"
        assert other.evaluate("window.ranFromGuest") is None
        other.close()
    assert page.evaluate("window.ranFromGuest") is None
    assert page.title() != "ran"


def test_names_of_every_kind_are_shown_and_lead_to_their_file(visit, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/hostile")
    grid = page.get_by_role("grid")
    expect(grid.get_by_role("row")).to_have_count(len(HOSTILE) + 1)
    names = grid.locator(".cell-name bdi").all_text_contents()
    assert "line<0A>break<01><7F>.txt" in names
    assert "latin1-gr<F6><DF>e <FF>.txt" in names
    assert "turn<U+202E>txt.exe" in names
    assert "<img src=x onerror=alert(1)>.txt" in names
    assert grid.locator("img").count() == 0
    for name, content in HOSTILE.items():
        if name.endswith((b".html", b".svg", b".png", b".jpg")):
            continue
        shown = grid.locator(".cell-name a").nth(names.index(_shown(name)))
        shown.click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("pre")).to_have_text(content.decode())
        found = taken(page, dialog.get_by_role("link", name="Download"), tmp_path)
        assert found.read_bytes() == content
        page.reload()  # its address can be kept
        expect(dialog.locator("pre")).to_have_text(content.decode())
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


def _shown(name: bytes) -> str:
    text = re.sub(r"[\udc80-\udcff]", lambda m: f"<{ord(m[0]) - 0xDC00:02X}>", os.fsdecode(name))
    text = re.sub(r"[\x00-\x1f\x7f]", lambda m: f"<{ord(m[0]):02X}>", text)
    return text.replace("\u202e", "<U+202E>")


def test_a_picture_is_shown(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/pictures")
    entry(page, "gradient.png").click()
    picture = page.get_by_role("dialog").get_by_role("img", name="Preview of gradient.png")
    expect(picture).to_be_visible()
    wait_until(lambda: picture.evaluate("img => img.naturalWidth") == 320, "the picture is there")

    asked = [method for method, url in visitor.methods if url.endswith("/gradient.png")]
    assert asked == ["HEAD", "GET"], "it is read once"
    expect(page.get_by_role("dialog")).not_to_contain_text("damaged")


def test_a_damaged_picture_says_so(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/pictures")
    for name in ("cut.png", "fake.gif"):
        entry(page, name).click()
        dialog = page.get_by_role("dialog", name=name)
        expect(dialog).to_contain_text("This image is damaged: parts are missing.")
        page.keyboard.press("Escape")


def test_owners_are_shown_and_whose_facts_they_are(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/home/anna")
    expect(row(page, "notes.txt")).to_contain_text(f"{ANNA}:{STAFF}")
    entry(page, "notes.txt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"user {ANNA} · group {STAFF}")
    expect(dialog).not_to_contain_text("link")
    visitor.go(f"{ROOT}?view=link")
    expect(dialog).to_contain_text("link to etc/hostname · the link itself: modified")


def test_of_a_long_text_the_begin_is_shown(visit, hurt):
    visitor = visit(hurt)
    page = visitor.page
    visitor.go(f"files/{HURT}/0?view=long.txt")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Only the first 256 KiB are shown.")
    text = dialog.locator("pre").text_content()
    assert text == ("0123456789abcde\n" * 50_000)[: 256 * 1024]


# --- what is refused ---------------------------------------------------------------------------


@pytest.fixture
def hurt(serve: Serve, tmp_path: Path) -> Daemon:
    """A daemon with a disk whose file system is damaged."""
    images = tmp_path / "hurt"
    qcow2(damaged(tmp_path), images / HURT / "disk0.qcow2")
    return serve("--images", images, "--listen", "127.0.0.1:0", "--listen-insecure")


def test_a_link_to_what_cannot_be_read_is_not_said_to_lead_nowhere(visit, hurt):
    hurt.expect("ERROR .* wrong checksum")
    visitor = visit(hurt)
    page = visitor.page
    visitor.go(f"files/{HURT}/0/links")
    expect(page.get_by_role("grid")).to_contain_text("wrong checksum")
    dialog = page.get_by_role("dialog")
    entry(page, "none").click()
    expect(dialog).to_contain_text("leads to nothing")
    page.keyboard.press("Escape")
    entry(page, "bad").click()
    expect(dialog.get_by_role("alert")).to_contain_text("wrong checksum")
    expect(dialog).not_to_contain_text("leads to nothing")


def test_from_a_damaged_folder_one_can_go_up(visit, hurt):
    hurt.expect("ERROR .* wrong checksum")
    visitor = visit(hurt)
    page = visitor.page
    visitor.go(f"files/{HURT}/0/nest/broken")
    expect(page.get_by_role("alert")).to_contain_text("wrong checksum")
    where = page.get_by_role("navigation", name="Where you are")
    expect(where).to_have_text(re.compile("Disk 0.*nest.*broken.*Cannot be shown"))
    where.get_by_role("link", name="nest").click()
    expect(entry(page, "sound")).to_be_visible()


def test_a_search_names_what_it_could_not_look_into(visit, hurt):
    hurt.expect("ERROR .* wrong checksum")
    visitor = visit(hurt)
    page = visitor.page
    visitor.go(f"search/{HURT}/0?pattern=inside")
    expect(page.get_by_text("2 matches in", exact=False).first).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="/nest/broken")).to_be_visible()
    expect(page.get_by_text("What could not be searched (1)")).to_be_visible()

    visitor = visit()
    page = visitor.page
    visitor.go(f"search/{PageSample.files}/0/part1/deep?pattern=102")
    deepest = "/part1/deep/" + "/".join(str(level) for level in range(100))
    expect(page.get_by_role("listitem").filter(has_text=deepest)).to_contain_text(
        "more than 100 folders deep"
    )


def test_a_download_that_fails_says_why(visit, hurt):
    hurt.expect("ERROR .* wrong checksum")
    visitor = visit(hurt)
    page = visitor.page
    visitor.go(f"files/{HURT}/0/nest?view=victim")
    dialog = page.get_by_role("dialog", name="victim")
    dialog.get_by_role("link", name="Download").click()
    expect(dialog.get_by_role("alert").first).to_contain_text("wrong checksum")


def test_an_archive_that_is_refused_says_why(visit, daemon, tmp_path):
    """The places are taken; an address and a form, which must not lead away from the page."""
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/many?q=entry-000")
    expect(counted(page, "1,000 entries")).to_be_visible()
    alert = page.get_by_role("main").get_by_role("alert")
    with ExitStack() as others:
        for _ in range(4):
            others.enter_context(archive_under_way(visitor.url, Sample.full, 1))
        page.get_by_role("link", name="Download folder as zip").click()
        expect(alert).to_contain_text("4 archives of yours are under way")
        page.get_by_role("checkbox", name="Select all").check()
        button = page.get_by_role("button", name="Download as zip")
        button.click()
        expect(alert).to_contain_text("4 archives of yours are under way")
        expect(button).to_be_visible()

    def free() -> bool:
        with httpx.Client(base_url=visitor.url) as client:
            mount = mount_of(client, Sample.full, 1)
            return client.head(f"/api/v1/restore/{mount}/archive").status_code == 200

    wait_until(free, "there are places again")
    found = taken(page, page.get_by_role("button", name="Try again"), tmp_path)
    with zipfile.ZipFile(found) as archive:
        assert len(archive.namelist()) == 1000
    expect(alert).to_have_count(0)


def mount_of(client: httpx.Client, backup: str, index: int) -> str:
    body = {"backup_id": backup, "disk_index": index}
    return client.post("/api/v1/restore/mount", json=body).json()["mount_id"]


@contextmanager
def archive_under_way(url: str, backup: str, index: int) -> Iterator[None]:
    """Have somebody take an archive, and not read on."""
    with httpx.Client(base_url=url) as client:
        mount = mount_of(client, backup, index)
        address = f"/api/v1/restore/{mount}/archive?format=tar.zst"
        with client.stream("GET", address) as response:
            assert response.status_code == 200
            yield


# --- a long list -------------------------------------------------------------------------------


def test_a_folder_of_100_000_entries_stays_quick(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(FILES)
    expect(entry(page, "many")).to_be_visible()
    began = time.monotonic()
    entry(page, "many").click()
    expect(row(page, "entry-000000.log")).to_be_visible()
    assert time.monotonic() - began < 5
    grid = page.get_by_role("grid")
    assert grid.get_attribute("aria-rowcount") == str(MANY + 1)
    grid.focus()

    began = time.monotonic()
    page.keyboard.press("End")
    expect(row(page, f"entry-{MANY - 1:06d}.log")).to_be_in_viewport()
    grid.press_sequentially("entry-0432")
    expect(row(page, "entry-043200.log")).to_be_in_viewport()
    expect(row(page, "entry-043200.log")).to_have_class(re.compile("active"))
    page.get_by_role("button", name="Size").click()  # the largest first
    expect(grid.get_by_role("row").nth(1)).to_contain_text("entry-075007.log")
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute(
        "aria-sort", "descending"
    )
    page.get_by_role("button", name="Size").click()
    expect(grid.get_by_role("row").nth(1)).to_contain_text("entry-000000.log")
    page.get_by_role("searchbox", name="Filter by name").fill("ENTRY-0999")
    expect(counted(page, "100 entries")).to_be_visible()
    assert time.monotonic() - began < 10

    assert page.locator(".grid-row").count() < 120
    page.keyboard.press("Escape")
    expect(counted(page, "100,000 entries")).to_be_visible()
    # Wherever one scrolls, the rows are there, and no page is asked for twice.
    for part in (0.25, 0.5, 0.75, 1):
        grid.evaluate("(grid, part) => grid.scrollTo(0, grid.scrollHeight * part)", part)
        expect(page.locator(".cell-coming")).to_have_count(0)
        assert page.locator(".grid-row").count() < 120


def test_a_file_far_down_a_long_list_can_be_gone_to(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{FILES}/many?view=entry-075007.log")
    dialog = page.get_by_role("dialog", name="entry-075007.log")
    expect(dialog).to_contain_text("4 bytes")
    expect(dialog.locator("pre")).to_have_text("xxxx")
    page.keyboard.press("Escape")
    expect(row(page, "entry-075007.log")).to_have_class(re.compile("active"))
    expect(row(page, "entry-075007.log")).to_be_in_viewport()


def test_going_back_ends_where_one_was(visit):
    visitor = visit()
    page = visitor.page
    visitor.go(f"{ROOT}/var/log")
    expect(row(page, "app.0.log")).to_be_visible()
    grid = page.get_by_role("grid")
    grid.press_sequentially("app.77")
    expect(row(page, "app.77.log")).to_have_class(re.compile("active"))
    page.get_by_role("link", name="part3").click()
    expect(entry(page, "etc")).to_be_visible()
    page.go_back()
    expect(row(page, "app.77.log")).to_have_class(re.compile("active"))
    expect(row(page, "app.77.log")).to_be_in_viewport()


# --- without a mouse, on a phone, in the dark --------------------------------------------------


def test_the_keyboard_is_enough(visit, sample, tmp_path):
    visitor = visit()
    page = visitor.page
    keys = page.keyboard
    visitor.go()
    expect(page.get_by_role("heading", name="Machines")).to_be_focused()
    _tab_to(page, page.get_by_role("link", name="web"))
    keys.press("Enter")
    expect(page.get_by_role("heading", name="web")).to_be_focused()
    _tab_to(page, page.get_by_role("link", name="22:13").last)
    keys.press("Enter")
    expect(page.get_by_role("link", name="part3")).to_be_visible()
    _tab_to(page, page.get_by_role("link", name="part3"))
    keys.press("Enter")
    grid = page.get_by_role("grid")
    expect(grid).to_be_focused()
    keys.type("et")
    expect(row(page, "etc")).to_have_class(re.compile("active"))
    active = grid.get_attribute("aria-activedescendant")
    assert active == row(page, "etc").get_attribute("id")
    keys.press("Enter")
    expect(row(page, "hostname")).to_be_visible()
    expect(grid).to_be_focused()
    keys.press("Control+a")
    expect(page.get_by_text("2 entries of 2 selected").first).to_be_visible()
    keys.press("Escape")
    expect(counted(page, "2 entries")).to_be_visible()
    keys.press("End")
    keys.press("Space")
    expect(row(page, "removed-later")).to_have_attribute("aria-selected", "true")
    keys.press("Escape")
    keys.press("Home")
    keys.press("Enter")
    dialog = page.get_by_role("dialog", name="hostname")
    expect(dialog.locator("pre")).to_have_text("web\n")
    _tab_to(page, dialog.get_by_role("link", name="Download"))
    with page.expect_download() as download:
        keys.press("Enter")
    download.value.save_as(tmp_path / "taken")
    assert sha256(tmp_path / "taken") == sha256(sample.sources.web / "etc" / "hostname")
    keys.press("Escape")
    expect(grid).to_be_focused()
    keys.press("/")
    expect(page.get_by_role("searchbox", name="Filter by name")).to_be_focused()
    keys.type("host")
    expect(counted(page, "1 entry")).to_be_visible()
    keys.press("Escape")
    keys.press("Escape")
    expect(grid).to_be_focused()
    keys.press("Backspace")
    expect(row(page, "var")).to_be_visible()
    expect(row(page, "etc")).to_have_class(re.compile("active"))  # where one came from
    expect(grid).to_be_focused()


def _tab_to(page: Page, target: Locator) -> None:
    """Press Tab until something has the focus, and it shows."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            assert target.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
            return
    raise AssertionError(f"Tab does not come to {target}")


VIEWS = {
    "machines": "/",
    "machine": "vm/web",
    "backup": FULL,
    "folder": f"{ROOT}/var/log",
    "odd names": f"{FILES}/hostile",
    "preview": f"{ROOT}/etc?view=hostname",
    "picture": f"{FILES}/pictures?view=gradient.png",
    "search": f"search/{Sample.full}/0/part3?pattern=app.1",
    "versions": "versions/web/0/part3/etc/hostname",
    "attached": "attached",
    "encrypted": f"files/{Sample.full}/0/part5",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_view_is_readable_and_has_names(visit, daemon, tmp_path, scheme, width):
    daemon.expect(ENCRYPTED)
    visitor = visit(color_scheme=scheme, viewport={"width": width, "height": 740})
    page = visitor.page
    for name, route in VIEWS.items():
        visitor.go(route)
        expect(page.locator("#main > *").first).to_be_visible()
        expect(page.locator(".busy, .cell-coming")).to_have_count(0)
        page.screenshot(path=tmp_path / f"{name}.png")
        assert low_contrast(page) == [], name
        assert nameless(page) == [], name
        assert not wider_than_screen(page), name
        if route != "/":
            visitor.go("/")
            expect(page.get_by_role("heading", name="Machines")).to_be_visible()


def test_on_a_phone_nothing_is_lost(visit):
    visitor = visit(viewport={"width": 360, "height": 740})
    page = visitor.page
    visitor.go(f"{ROOT}/var/log")
    expect(row(page, "app.0.log")).to_be_visible()
    assert page.get_by_role("grid").bounding_box()["height"] > 0.6 * 740
    assert page.get_by_role("link", name="Attached disks").bounding_box()["height"] < 40
    page.get_by_role("link", name="Search below").click()
    where = page.get_by_role("navigation", name="Where you are")
    expect(where).to_have_class("cut")  # which says that there is more to the left
    where.evaluate("nav => nav.scrollTo(0, 0)")
    expect(where).not_to_have_class("cut")
    expect(where.get_by_role("link", name="All machines")).to_be_in_viewport(ratio=1)
    visitor.go("versions/web/0/part3/etc/hostname")
    for label in ("Old", "New"):
        expect(page.locator("tbody").get_by_text(label, exact=True)).to_have_count(2)
        expect(page.locator("tbody").get_by_text(label, exact=True).first).to_be_visible()


# --- who may -----------------------------------------------------------------------------------


def test_a_token_signs_in_and_is_kept_nowhere(visit, serve, pages, tmp_path):
    tokens = tmp_path / "tokens"
    token = restorefs("token", "add", "anna", "--file", tokens).out.strip().splitlines()[-1]
    daemon = serve("--images", pages.repository, "--listen", "127.0.0.1:0", "--token-file", tokens)
    visitor = visit(daemon)
    page = visitor.page
    visitor.go(f"{ROOT}/etc")
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    assert nameless(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    expect(page.get_by_text("restorefs", exact=True)).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 800})
    field.fill("not-a-token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This token is not known.")
    field.fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(entry(page, "hostname")).to_be_visible()  # where one wanted to go
    expect(page.get_by_text("anna", exact=True)).to_be_visible()
    kept = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    assert token not in page.evaluate(kept)
    assert json.loads(page.evaluate(kept))[2] == ""
    assert not any(token in url for url in visitor.asked)
    entry(page, "hostname").click()
    found = taken(page, page.get_by_role("dialog").get_by_role("link", name="Download"), tmp_path)
    assert found.read_text() == "web\n"
    page.keyboard.press("Escape")
    # Where it fails, one is still signed in, and it must not look otherwise.
    failing = {"status": 502, "json": {"detail": "a proxy in between has a fault"}}
    page.route("**/api/v1/session", lambda route: route.fulfill(**failing))
    page.get_by_role("button", name="Sign out").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("You are still signed in. a proxy in between has a fault")
    expect(entry(page, "hostname")).to_be_visible()
    page.unroute("**/api/v1/session")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()


def test_what_is_attached_is_shown_and_let_go(visit, daemon):
    visitor = visit()
    page = visitor.page
    list((daemon.backups / Sample.full / "disk1").iterdir())
    visitor.go("attached")
    item = page.get_by_role("listitem").filter(has_text=Sample.full)
    expect(item).to_contain_text("Disk 1 of web, 2023-11-14 22:13")
    expect(item).to_contain_text("ext4")
    expect(item).to_contain_text(f"process {os.getpid()}")
    expect(item).to_contain_text("if nobody uses it")
    expect(page.get_by_text("1 disk is attached now, of at most 64.", exact=False)).to_be_visible()
    visitor.go(LATER)
    expect(page.get_by_role("link", name="part3")).to_be_visible()
    visitor.go("attached")
    own = page.get_by_role("listitem").filter(has_text=Sample.incremental)
    expect(own).to_contain_text("anybody, over the API or this page")
    own.get_by_role("button", name="Let go of disk 0 of web, 2023-11-15 22:13").click()
    expect(own).to_have_count(0)
    item.get_by_role("button", name="Let go of disk 1").click()
    expect(page.get_by_text("No disk is attached now", exact=False)).to_be_visible()
    assert daemon.attached() == {}
    expect(page.get_by_role("heading", name="Attached disks")).to_be_focused()


def test_what_of_the_catalog_cannot_be_read_is_shown(visit):
    visitor = visit()
    page = visitor.page
    text = "/srv/backups/backup-x: Permission denied"

    def unread(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"catalog_unread": [text]})

    visitor.go("attached")
    expect(page.get_by_text("attached now", exact=False)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.route("**/api/v1/status", unread)
    visitor.go(LATER)
    expect(page.get_by_role("link", name="part3")).to_be_visible()
    visitor.go("attached")
    expect(page.get_by_role("alert")).to_contain_text(text)


# --- the README's picture ----------------------------------------------------------------------


def test_the_screenshot_of_the_readme_can_be_made(visit, tmp_path):
    """Made anew by RESTOREFS_SCREENSHOT=1."""
    visitor = visit(viewport={"width": 1120, "height": 640})
    page = visitor.page
    visitor.go(f"{FILES}/home/anna")
    row(page, "Budget 2023.xlsx").get_by_role("checkbox").check()
    row(page, "Letter to the bank.odt").get_by_role("checkbox").check()
    page.mouse.move(0, 0)
    made = tmp_path / "page.png"
    page.screenshot(path=made)
    assert 10_000 < made.stat().st_size < LIMIT
    if os.environ.get("RESTOREFS_SCREENSHOT") == "1":
        shutil.copyfile(made, SCREENSHOT)
    assert SCREENSHOT.stat().st_size < LIMIT
