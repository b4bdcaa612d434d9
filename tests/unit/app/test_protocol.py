"""Wire formats: multipart bodies, the answer's numbers, ids."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.errors import (
    InvalidParameterError,
    MalformedMultipartError,
    NoFilesError,
    RequestError,
    TooManyImagesError,
)
from tessera.app.protocol.classify import (
    Classified,
    build_answer,
    resolve_explain,
    resolve_top_k,
    softmax,
    top_predictions,
)
from tessera.app.protocol.multipart import ImageFile, is_multipart, parse_multipart
from tessera.app.protocol.request_id import request_id_for

LABELS = ["ant", "bee", "cat", "dog"]
TYPE = "multipart/form-data; boundary=b"


def form(*parts: tuple[str, bytes], close: bool = True) -> bytes:
    body = b"".join(
        f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n" for disposition, data in parts
    )
    return body + (b"--b--\r\n" if close else b"")


def parse(body: bytes, content_type: str = TYPE, max_files: int = 8) -> list[ImageFile]:
    return parse_multipart(content_type, body, max_files=max_files)


# What httpx writes is what a real client sends; its file names are of the kinds that need no escaping.
plain = st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=("Cs", "Cc"))
names = st.text(plain, min_size=1, max_size=40)


@given(st.lists(st.tuples(names, st.binary(max_size=300)), min_size=1, max_size=6))
def test_what_a_client_sends_is_what_is_read(files: list[tuple[str, bytes]]) -> None:
    request = httpx.Request("POST", "http://x/", files=[("file", (name, data)) for name, data in files])
    uploads = parse(request.read(), request.headers["content-type"])
    assert [upload.data for upload in uploads] == [data for _, data in files]
    assert [upload.filename for upload in uploads] == [name for name, _ in files]


@given(st.binary(max_size=400))
def test_any_bytes_give_files_or_a_request_error(noise: bytes) -> None:
    for body in (noise, b"--b\r\n" + noise, form(('form-data; name="file"', noise), close=False)):
        refusal, uploads = None, []
        try:
            uploads = parse(body)
        except RequestError as error:
            refusal = error
        assert uploads if refusal is None else refusal.status < 500


def test_a_part_without_a_filename_is_an_image_too() -> None:
    assert parse(form(('form-data; name="file"', b"x"))) == [ImageFile(None, b"x")]


def test_files_may_share_a_name() -> None:
    part = ('form-data; name="file"; filename="a.png"', b"x")
    assert len(parse(form(part, part))) == 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(('form-data; name="file"', b"x"), close=False), TYPE),
        (form(('form-data; name="file"', b"x")), "multipart/form-data; boundary=other"),
        (form(('form-data; name="file"', b"x")), "multipart/form-data"),
        (form(('form-data; name="file"', b"x")), "multipart/form-data; boundary="),
        (form(('form-data; name="file"', b"x")), "multipart/form-data; boundary=" + "b" * 500),
        (form(('form-data; name="file"', b"x")), "multipart/mixed; boundary=b"),
        (form(('form-data; name="image"', b"x")), TYPE),
        (form(("form-data", b"x")), TYPE),
        (form(('attachment; name="file"', b"x")), TYPE),
        (b"--b\r\nno colon here\r\n\r\nx\r\n--b--\r\n", TYPE),
        (b"--b\r\n\r\nx\r\n--b--\r\n", TYPE),
        (b"not multipart at all", TYPE),
    ],
)
def test_malformed_bodies_are_named_as_such(body: bytes, content_type: str) -> None:
    with pytest.raises(MalformedMultipartError):
        parse(body, content_type)


def test_a_wrong_field_name_is_told_with_the_right_one() -> None:
    with pytest.raises(MalformedMultipartError, match=r"'picture'.*'file'"):
        parse(form(('form-data; name="picture"', b"x")))


@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a message in several parts.\r\n",
        b"\r\n",
        b"--\r\n",
        b"--a\r\n\r\n",
        b"a --b\r\n",
        b"--c--\r\n-b\r\n",
        b"\0\xff\r\n" * 100,
    ],
)
def test_a_preamble_and_an_epilogue_are_left_out(preamble: bytes) -> None:
    body = form(('form-data; name="file"', b"x"), ('form-data; name="file"', b"y"))
    assert [upload.data for upload in parse(preamble + body)] == [b"x", b"y"]
    assert [upload.data for upload in parse(body + preamble)] == [b"x", b"y"]
    part = ('form-data; name="file"', b"x")
    assert len(parse(preamble + form(*[part] * 8))) == 8
    with pytest.raises(TooManyImagesError):
        parse(preamble + form(*[part] * 9))


def test_a_form_without_parts_has_no_files() -> None:
    with pytest.raises(NoFilesError):
        parse(b"--b--\r\n")


def test_too_many_files_are_refused() -> None:
    part = ('form-data; name="file"', b"x")
    assert len(parse(form(*[part] * 8))) == 8
    with pytest.raises(TooManyImagesError, match="more than 8 images"):
        parse(form(*[part] * 9))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), ("image/jpeg", False), ("multipart/form-data; boundary=x", True), (" Multipart/Form-Data", True)],
)
def test_is_multipart(value: str | None, expected: bool) -> None:
    assert is_multipart(value) is expected


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50))
def test_softmax_sums_to_one_and_keeps_the_order(scores: list[float]) -> None:
    logits = np.array(scores, np.float32)
    probabilities = softmax(logits)
    assert np.isclose(probabilities.sum(), 1)
    assert (np.diff(probabilities[np.argsort(logits, kind="stable")]) >= 0).all()


def test_predictions_are_ranked() -> None:
    predictions = top_predictions(np.array([0, 3, 1, 3], np.float32), LABELS, 3)
    assert [p["label"] for p in predictions] == ["bee", "dog", "cat"], "equal scores keep the order of the classes"
    assert [p["rank"] for p in predictions] == [1, 2, 3]
    assert [p["index"] for p in predictions] == [1, 3, 2]
    assert predictions[0]["probability"] == pytest.approx(0.4576, abs=1e-4)


@pytest.mark.parametrize(("sent", "expected"), [(None, 4), ("1", 1), ("4", 4), ("03", 3)])
def test_top_k(sent: str | None, expected: int) -> None:
    assert resolve_top_k(sent, 4) == expected


def test_top_k_is_five_when_absent() -> None:
    assert resolve_top_k(None, 1000) == 5


@pytest.mark.parametrize(
    "sent", ["0", "5", "-1", "1.0", "", "x", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000, " 1", "1e1"]
)
def test_bad_top_k(sent: str) -> None:
    with pytest.raises(InvalidParameterError, match="from 1 to 4"):
        resolve_top_k(sent, 4)


@pytest.mark.parametrize(("sent", "top_k", "expected"), [(None, 99, 0), ("0", 99, 0), ("1", 1, 1), ("1", 10, 10)])
def test_explain_is_of_every_label_or_of_none(sent: str | None, top_k: int, expected: int) -> None:
    assert resolve_explain(sent, top_k) == expected


@pytest.mark.parametrize(
    ("sent", "top_k", "says"), [("1", 11, "at most 10"), ("true", 5, "must be 1"), ("", 5, "must")]
)
def test_bad_explain(sent: str, top_k: int, says: str) -> None:
    with pytest.raises(InvalidParameterError, match=says):
        resolve_explain(sent, top_k)


def test_the_answer_has_the_contract_s_shape() -> None:
    logits = np.array([0, 3, 1, 2], np.float32)
    images = [Classified("a.png", logits, 0.0021, 0.0001, 0.0118, 3), Classified(None, logits, 0, 0, 0, 1)]
    answer = build_answer("m", "baseline", images, LABELS, 1)
    assert set(answer) == {"model", "variant", "results"}
    first, second = answer["results"]
    assert first["filename"] == "a.png"
    assert "filename" not in second
    assert first["timing"] == {"decode_ms": 2.1, "queue_ms": 0.1, "compute_ms": 11.8, "batch_size": 3}
    assert set(first["predictions"][0]) == {"rank", "index", "label", "probability"}


@pytest.mark.parametrize("sent", ["abc", "0af7651916cd43dd8448eb211c80319c", "a/b:c=d+e@f_g.h-i", "x" * 128])
def test_a_harmless_request_id_is_kept(sent: str) -> None:
    assert request_id_for(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "a b", "a\nb", "<script>", "é", 'a"b'])
def test_any_other_request_id_is_replaced(sent: str | None) -> None:
    made = request_id_for(sent)
    assert made != sent
    assert len(made) == 32
    assert made != request_id_for(sent)
