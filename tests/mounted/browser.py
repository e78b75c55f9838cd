"""A real browser, and somebody who looks at the page with it.

Owns that Debian's chromium is started by Playwright, and that whatever goes wrong unseen is an
error: a dialog, an exception, a complaint of the content security policy, a request to somewhere
else. Knows no view of the page. Concurrency: Playwright's own; one thread.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.tools import unavailable

SECONDS = 30
# What a browser says of each answer that is an error; the page tells its user.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (4|5)\d\d")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Have a browser run; skip the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        unavailable("not installed: chromium")
    # Root cannot have chromium's own sandbox; what it shows here is our own.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=args)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody with a window of their own, and what went wrong while they looked."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url.rstrip("/")
        options = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "UTC"} | options
        self.context = browser.new_context(reduced_motion="reduce", **options)
        self.context.set_default_timeout(SECONDS * 1000)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.methods: list[tuple[str, str]] = []
        self.context.on("page", self._watch)
        self.page: Page = self.context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        page.on("console", self._said)
        page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _REFUSED.match(message.text):
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        self.asked.append(request.url)
        self.methods.append((request.method, request.url))
        if not request.url.startswith((self.url + "/", "data:", "blob:")):
            self.wrong.append(f"asked for {request.url}")

    def go(self, route: str = "/") -> None:
        """Open a view by its address."""
        self.page.goto(f"{self.url}/#{route}")

    def close(self) -> None:
        self.context.close()
        assert not self.wrong, "\n".join(self.wrong)


# --- what can be measured of any view -----------------------------------------------------------

_CONTRAST = """() => {
    const channels = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
    const light = (color) => {
        const [r, g, b] = color.map((c) => c / 255)
            .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const [r, g, b, alpha = 1] = channels(getComputedStyle(each).backgroundColor);
            if (alpha === 1) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const low = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        if (element.closest(".unseen, noscript, .skip")) continue;
        const [a, b] = [light(channels(getComputedStyle(element).color)), light(ground(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.slice(0, 40)}`);
    }
    return low;
}"""
_CONTROL = re.compile(
    r"\s*- (button|link|textbox|searchbox|checkbox|radio|grid|dialog|img|navigation|progressbar)"
    r'(?! ")\b.*'
)


def low_contrast(page: Page) -> list[str]:
    """Return the texts whose contrast is below WCAG AA's 4.5."""
    return list(page.evaluate(_CONTRAST))


def nameless(page: Page) -> list[str]:
    """Return the controls that a screen reader has no name for."""
    return [
        line
        for line in page.locator("body").aria_snapshot().splitlines()
        if _CONTROL.fullmatch(line)
    ]


def wider_than_screen(page: Page) -> bool:
    """Say whether one has to scroll sideways."""
    script = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return bool(page.evaluate(script))
