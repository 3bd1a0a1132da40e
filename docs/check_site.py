"""Checks the built site: links and anchors lead somewhere, images have a text, and no page is slow or too wide.

    python docs/check_site.py site                                   # links and images
    python docs/check_site.py site --browser /usr/bin/chromium       # also in a browser (pip install playwright)

In a browser, at 1280 and at 390 pixels, no page scrolls sideways, nothing in its text is cut off, no image is missing,
nothing is fetched from a network, and it is painted within two seconds.
"""

from __future__ import annotations

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

WIDTHS = (1280, 390)
SECONDS = 2.0
MEASURE = """() => {
  const wide = [], width = window.innerWidth;
  for (const element of document.querySelectorAll('article *')) {
    let box = element, scrolls = false;
    for (; box && box.tagName != 'ARTICLE'; box = box.parentElement)
      scrolls ||= ['auto', 'scroll', 'hidden'].includes(getComputedStyle(box).overflowX);
    const {right, width: own} = element.getBoundingClientRect();
    if (!scrolls && own > 0 && right > width + 1) wide.push(element.tagName + ' ' + element.textContent.slice(0, 40));
  }
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  return {
    sideways: document.documentElement.scrollWidth > width, wide: wide.slice(0, 3),
    missing: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    fetched: performance.getEntriesByType('resource').map(r => r.name).filter(n => n.startsWith('http')),
    paint: paint ? paint.startTime / 1000 : 0,
  };
}"""


class Page(HTMLParser):
    """Anchors, links and images of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.silent: list[str] = []  # images without a text
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag is."""
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        if target := given.get({"a": "href", "img": "src", "script": "src", "link": "href"}.get(tag, "")):
            self.links.append(target)
        if tag == "img" and not (given.get("alt") or "").strip():
            self.silent.append(given.get("src") or "?")


def links_and_images(site: Path) -> list[str]:
    """Faults of the pages as files."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    faults = [f"{path.name}: image {source} has no text" for path, page in pages.items() for source in page.silent]
    for path, page in pages.items():
        if "_modules" in path.parts:  # listings of the code link back by one of several names of an object
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(target)
            if not target.exists():
                faults.append(f"{path.name}: {link} leads nowhere")
            elif known is not None and parts.fragment and unquote(parts.fragment) not in known.anchors:
                faults.append(f"{path.name}: {link} has no such anchor")
    return faults


def in_browser(site: Path, executable: str) -> list[str]:
    """Faults of the pages as they are painted."""
    from playwright.sync_api import sync_playwright

    faults, slowest = [], 0.0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        for width in WIDTHS:
            view = browser.new_page(viewport={"width": width, "height": 900})
            for path in sorted(site.rglob("*.html")):
                view.goto(path.resolve().as_uri(), wait_until="load")
                found: dict[str, Any] = view.evaluate(MEASURE)
                paint = found.pop("paint")
                slowest = max(slowest, paint)
                faults += [f"{path.name} at {width}: {name} {value}" for name, value in found.items() if value]
                if paint > SECONDS:
                    faults.append(f"{path.name} at {width}: painted after {paint:.1f} s")
            view.close()
        browser.close()
    print(f"slowest page: painted after {slowest:.2f} s")
    return faults


def main() -> None:
    """Print the faults; exit with 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--browser", help="executable of Chromium")
    given = parser.parse_args()
    if not (given.site / "index.html").exists():
        sys.exit(f"{given.site} holds no site; build it with tox -e docs.")
    faults = links_and_images(given.site) + (in_browser(given.site, given.browser) if given.browser else [])
    print("\n".join(faults) or "no faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
