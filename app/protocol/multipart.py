"""A multipart/form-data body to its files."""

from __future__ import annotations

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tessera.app.errors import MalformedMultipartError, NoFilesError, TooManyImagesError, quoted
from tessera.wording import counted

FIELD = "file"
_MAX_NAME = 1024
_MAX_CONTENT_TYPE = 1024  # characters; a boundary has 70 at most
_MAX_PART_HEADERS = 8192  # bytes of one part's header section


class ImageFile(NamedTuple):
    """One image as it was sent.

    Attributes:
        filename: As the client named it, or None.
        data: The file's bytes.
    """

    filename: str | None
    data: bytes


def is_multipart(content_type: str | None) -> bool:
    """Whether a Content-Type announces a multipart body."""
    return content_type is not None and content_type.lstrip().lower().startswith("multipart/")


def parse_multipart(content_type: str, body: bytes, *, max_files: int) -> list[ImageFile]:
    """Split a multipart body into its files, in order.

    Args:
        content_type: The request's Content-Type, with the boundary.
        body: The whole body.
        max_files: Most parts allowed.

    Raises:
        MalformedMultipartError: No boundary, not form-data, cut short, or a part is not named `file`.
        NoFilesError: There is no part at all.
        TooManyImagesError: More than `max_files` parts.
    """
    kind, options = parse_options_header(content_type[:_MAX_CONTENT_TYPE])
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedMultipartError(
            "The Content-Type must be multipart/form-data with a boundary, or anything else for a single raw image."
        )
    body = _from_first_delimiter(body, boundary, max_files)
    collector = _Collector(max_files)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.part_begin,
                "on_part_data": collector.part_data,
                "on_part_end": collector.part_end,
                "on_header_field": collector.header_field,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_headers_finished": collector.headers_finished,
                "on_end": collector.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedMultipartError("The multipart body does not follow its boundary.") from error
    if not collector.ended:
        raise MalformedMultipartError("The multipart body ends before its closing boundary.")
    if not collector.uploads:
        raise NoFilesError(f"The multipart body has no part; send images in parts named {FIELD!r}.")
    return collector.uploads


def _from_first_delimiter(body: bytes, boundary: bytes, max_files: int) -> bytes:
    """Leave out the preamble, which is for readers that know no multipart (RFC 2046, section 5.1.1).

    The parser stops at each line that begins with the boundary, so these are counted before.
    """
    line = b"\r\n--" + boundary
    start = 0
    if not body.startswith(line[2:]):
        found = body.find(line)
        if found < 0:
            raise MalformedMultipartError("The multipart body does not follow its boundary.")
        start = found + 2
    if body.count(line, start) > max_files:
        raise _too_many(max_files)
    return body[start:] if start else body


def _too_many(max_files: int) -> TooManyImagesError:
    return TooManyImagesError(f"The request has more than {counted(max_files, 'image')}; send several requests.")


class _Collector:
    """Gathers what the streaming parser reports."""

    def __init__(self, max_files: int) -> None:
        self.uploads: list[ImageFile] = []
        self.ended = False
        self._max_files = max_files
        self._data: list[bytes] = []
        self._disposition = b""
        self._field = b""
        self._value = b""
        self._filename: str | None = None
        self._header_bytes = 0

    def part_begin(self) -> None:
        if len(self.uploads) == self._max_files:
            raise _too_many(self._max_files)
        self._data = []
        self._disposition = b""
        self._header_bytes = 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise MalformedMultipartError("Each part needs a Content-Disposition of form-data with a name.")
        if name != FIELD.encode():
            raise MalformedMultipartError(
                f"There is a part named {quoted(_text(name), 40)}; images go in parts named {FIELD!r}, nothing else is "
                "read."
            )
        filename = options.get(b"filename")
        self._filename = None if filename is None else _text(filename)[:_MAX_NAME]

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def part_end(self) -> None:
        self.uploads.append(ImageFile(self._filename, b"".join(self._data)))

    def end(self) -> None:
        self.ended = True

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_PART_HEADERS:
            raise MalformedMultipartError(f"A part's headers are over {_MAX_PART_HEADERS} bytes.")


def _text(raw: bytes) -> str:
    # Browsers and HTTP libraries send names as UTF-8; anything else must still not break the answer.
    return raw.decode("utf-8", errors="replace")
