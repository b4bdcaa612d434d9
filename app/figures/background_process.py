"""The process that takes a profile in the background; see `tessera.app.figures.background`.

It gets its settings in a line on standard input, and ends when that is closed: with the service, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path

from tessera.app.figures.documents import write_document
from tessera.app.figures.images import load_images
from tessera.app.figures.profiling import profile_variants
from tessera.app.served.loading import open_configured_model
from tessera.app.settings import Settings

_BATCH = 16
_RUNS = 15


def main() -> None:
    """Take the profile and write it."""
    _give_way()
    told = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settings = Settings.model_validate({**Settings.model_construct().model_dump(), **told["settings"]})
    model = open_configured_model(settings)
    images = load_images([], _BATCH, model.preprocessing)
    write_document(Path(told["target"]), profile_variants(model, settings, images, _RUNS))


def _give_way() -> None:
    """Get a tenth of a core that others want, and be the first to be ended when memory runs out.

    Less would never come to an end beside a busy neighbour.
    """
    os.nice(10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
