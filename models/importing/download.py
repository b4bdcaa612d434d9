"""Files from the network: resumed where they broke off, checked before they get their name."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tessera.engine.errors import ModelError
from tessera.models.formats.weights import file_sha256
from tessera.models.importing.catalogue import CatalogueEntry

Progress = Callable[[str, float], None]

PART_SUFFIX = ".part"

_MOST_REDIRECTS = 5
# Attempts at one address that bring nothing new, before the next address is tried.
_ATTEMPTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True)
class Patience:
    """How slow a server may be before it is given up.

    Attributes:
        connect: seconds to connect.
        silence: seconds without a byte.
        window: seconds over which the rate is measured.
        rate: least bytes per second over a window; slower is no better than broken.
    """

    connect: float = 10.0
    silence: float = 30.0
    window: float = 60.0
    rate: float = 1024.0


class _AddressError(Exception):
    """This address does not give the file; another may."""


class _BrokenOffError(Exception):
    """The transfer ended early; what came is kept and may be continued."""


def download(
    entry: CatalogueEntry,
    folder: Path,
    *,
    mirrors: Sequence[str] = (),
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Fetch a file into a folder, or find it there.

    An interrupted download is continued by the next one. The file gets its name only after size and SHA-256 have been
    checked. One process at a time may work on a folder: hold its lock.

    Args:
        entry: what to fetch.
        folder: where to; it has to exist.
        mirrors: addresses to try before the entry's own; one that ends in a slash is a folder that holds the file.
        progress: called as `progress(stage, fraction)`.
        patience: how slow a server may be.

    Raises:
        ModelError: no address gave the right file, or it cannot be written; the message says what to do.
    """
    report = progress or (lambda stage, fraction: None)
    target = folder / entry.file
    part = folder / (entry.file + PART_SUFFIX)
    if target.is_file() and _is_right(target, entry):
        return target
    problems = []
    with _storage_errors(part, entry), _client(patience or Patience()) as client:
        for url in [*(mirror + entry.file if mirror.endswith("/") else mirror for mirror in mirrors), *entry.urls]:
            try:
                _fetch(client, url, entry, part, report, patience or Patience())
            except _AddressError as error:
                problems.append(f"  {url}: {error}")
                continue
            os.replace(part, target)
            return target
    raise ModelError(
        f"{entry.name} could not be downloaded:\n" + "\n".join(problems) + "\n"
        "Try again when the network is back; what has arrived is kept. Without a network, fetch the file elsewhere "
        f"and put it at {target}, then run the command again; or name another address with --mirror URL."
    )


def _client(patience: Patience) -> httpx.Client:
    timeout = httpx.Timeout(patience.silence, connect=patience.connect)
    # Compression would make offsets and sizes mean something else; weights do not compress anyway.
    return httpx.Client(timeout=timeout, headers={"Accept-Encoding": "identity"}, follow_redirects=False)


@contextmanager
def _storage_errors(part: Path, entry: CatalogueEntry) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full:  # the space is given back: what filled the disk is most likely needed by someone else as well
            part.unlink(missing_ok=True)
        advice = f"Free {entry.bytes} bytes there, or use another folder with --cache-dir." if full else ""
        reason = "the disk is full" if full else error.strerror or str(error)
        raise ModelError(f"Cannot write {entry.file} to {part.parent}: {reason}. {advice}".rstrip()) from error


def _fetch(
    client: httpx.Client, url: str, entry: CatalogueEntry, part: Path, report: Progress, patience: Patience
) -> None:
    """Bring `part` to the whole, checked file from one address."""
    attempts = furthest = 0
    had_older_bytes = _size(part) > 0
    while True:
        before = _size(part)
        try:
            if before < entry.bytes:
                _transfer(client, url, entry, part, report, patience)
            report(f"checking {entry.file}", 1.0)
            if _is_right(part, entry):
                return
            part.unlink(missing_ok=True)
            if not had_older_bytes:
                raise _AddressError("it is another file: its SHA-256 is not the one that is expected")
            # The fault may lie in what an earlier attempt left; from here on every byte is this address's own.
            had_older_bytes, furthest = False, 0
        except _BrokenOffError as error:
            # What is too little to count keeps a server that gives a byte at a time from going on for ever.
            attempts = 0 if _size(part) > max(before, furthest) + entry.bytes // 1000 else attempts + 1
            furthest = max(furthest, _size(part))
            if attempts >= _ATTEMPTS:
                raise _AddressError(str(error)) from error


def _transfer(
    client: httpx.Client, url: str, entry: CatalogueEntry, part: Path, report: Progress, patience: Patience
) -> None:
    offset = _size(part)
    if shutil.disk_usage(part.parent).free < entry.bytes - offset:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        with _open(client, url, offset) as response:
            if response.status_code == 416 and offset:
                part.unlink()
                raise _BrokenOffError("it refuses to continue the download")
            start = _start(response, offset, entry)
            with part.open("ab" if start else "wb") as file:
                _write_body(response, file.write, start, entry, report, patience)
                file.flush()
                os.fsync(file.fileno())
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _AddressError(f"no connection ({error})") from error
    except httpx.TransportError as error:
        raise _BrokenOffError(f"the transfer broke off ({error or type(error).__name__})") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise _AddressError(f"not a usable address ({error})") from error
    if _size(part) < entry.bytes:
        raise _BrokenOffError("the transfer ended early")


@contextmanager
def _open(client: httpx.Client, url: str, offset: int) -> Iterator[httpx.Response]:
    request = client.build_request("GET", url, headers={"Range": f"bytes={offset}-"} if offset else {})
    for _ in range(_MOST_REDIRECTS + 1):
        if request.url.scheme not in ("http", "https"):
            raise _AddressError(f"it leads to {request.url}, which is neither http nor https")
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                yield response
                return
        finally:
            response.close()
        if request.url.scheme == "https" and response.next_request.url.scheme != "https":
            raise _AddressError(f"it leads from https to {response.next_request.url}")
        request = response.next_request
    raise _AddressError(f"more than {_MOST_REDIRECTS} redirects")


def _start(response: httpx.Response, offset: int, entry: CatalogueEntry) -> int:
    """Where in the file the answer's body begins."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _AddressError("it answers compressed, though asked not to")
    if response.status_code == 200:
        start, length = 0, response.headers.get("Content-Length")
        total = int(length) if length and length.isdecimal() else entry.bytes
    elif response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            raise _AddressError("it answers with another part of the file than it was asked for")
        start, total = offset, entry.bytes if match[3] == "*" else int(match[3])
    else:
        raise _AddressError(f"it answers {response.status_code} {response.reason_phrase}".rstrip())
    if total != entry.bytes:
        raise _AddressError(f"it is another file: {total} bytes instead of {entry.bytes}")
    return start


def _write_body(
    response: httpx.Response,
    write: Callable[[bytes], int],
    start: int,
    entry: CatalogueEntry,
    report: Progress,
    patience: Patience,
) -> None:
    stage = f"downloading {entry.file} from {response.url.host}"
    position = marked = start
    since = time.monotonic()
    for block in response.iter_raw():
        position += len(block)
        if position > entry.bytes:
            raise _AddressError(f"it is another file: more than {entry.bytes} bytes")
        write(block)
        report(stage, position / entry.bytes)
        now = time.monotonic()
        if now - since >= patience.window:
            if position - marked < patience.rate * (now - since):
                raise _AddressError(f"too slow: {(position - marked) / (now - since):.0f} bytes per second")
            marked, since = position, now


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_right(path: Path, entry: CatalogueEntry) -> bool:
    return _size(path) == entry.bytes and file_sha256(path).startswith(entry.sha256)
