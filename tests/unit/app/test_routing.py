from __future__ import annotations

import pytest

from tessera.app.errors import UnknownVariantError
from tessera.app.routing.variants import choose_variant

VALID = ("baseline", "optimised")


@pytest.mark.parametrize(
    ("sent", "chosen"),
    [([], "optimised"), (["baseline"], "baseline"), ([" optimised "], "optimised"), (["baseline"] * 2, "baseline")],
)
def test_the_header_chooses_and_the_default_fills_in(sent: list[str], chosen: str) -> None:
    assert choose_variant(sent, VALID, "optimised") == chosen


@pytest.mark.parametrize(
    "sent", [["fast"], [""], ["Baseline"], ["baseline, optimised"], ["baseline", "optimised"], ["x" * 9000]]
)
def test_anything_else_is_an_error_that_lists_the_choices(sent: list[str]) -> None:
    with pytest.raises(UnknownVariantError, match="baseline, optimised") as error:
        choose_variant(sent, VALID, "optimised")
    assert len(error.value.message) < 200
