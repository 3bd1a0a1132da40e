"""A progress bar for what takes long: none before two seconds have passed, none without tqdm."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

SILENT = 2.0  # seconds before a bar appears


def progress(items: Sequence[Item], text: str) -> Iterator[Item]:
    """The items one by one, with a bar on stderr once they have taken two seconds.

    Args:
        items: what is worked through.
        text: what is being done, at the head of the bar.

    Yields:
        Each item.
    """
    start = time.monotonic()
    bar: Any = None
    try:
        for done, item in enumerate(items):
            if bar is not None:
                bar.update()
            elif time.monotonic() - start > SILENT and importlib.util.find_spec("tqdm") is not None:
                from tqdm import tqdm

                bar = tqdm(total=len(items), initial=done, desc=text, file=sys.stderr, leave=False)
            yield item
    finally:
        if bar is not None:
            bar.close()
