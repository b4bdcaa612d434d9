from __future__ import annotations

import numpy as np
import pytest

from tessera.app.routing.shadow import Run, ShadowRecord, compare, logit_distance, pixel_digest


def run(*logits: float, seconds: float = 0.1, batch_size: int = 1) -> Run:
    return Run(np.array(logits, np.float32), seconds, batch_size)


def test_equal_answers_at_another_speed() -> None:
    comparison = compare(run(1, 5, 2, seconds=0.3), run(1, 5, 2, seconds=0.1))
    assert comparison == (True, 0.0, pytest.approx(3.0))


def test_another_top_label() -> None:
    comparison = compare(run(1, 5, 2), run(6, 5, 2))
    assert not comparison.agrees
    assert comparison.distance > 0.5


def test_batches_of_different_sizes_say_nothing_of_speed() -> None:
    assert compare(run(1, 2, batch_size=16), run(1, 2, batch_size=1)).speed_up is None


def test_logit_distance() -> None:
    reference = np.array([1.0, 2.0, 6.0], np.float32)
    assert logit_distance(reference, reference + 100) == pytest.approx(0, abs=1e-5), "softmax does not see it either"
    assert logit_distance(reference, np.zeros(3, np.float32)) == pytest.approx(1)
    assert logit_distance(reference, reference * 1.1) == pytest.approx(0.1, rel=1e-5)
    assert logit_distance(np.ones(3, np.float32), reference) > 1000
    assert logit_distance(np.ones(3, np.float32), np.ones(3, np.float32)) == 0


def test_pixels_are_known_by_content() -> None:
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    assert pixel_digest(pixels) == pixel_digest(pixels.copy())
    assert pixel_digest(pixels) != pixel_digest(pixels[::-1])


def test_the_record_adds_up() -> None:
    record = ShadowRecord()
    for number in range(10):
        record.observe(compare(run(1, 5, seconds=0.2), run(1, 5) if number else run(5, 1)))
    agreement, speed_up = record.agreement(), record.speed_up.interval()
    assert agreement is not None
    assert speed_up is not None
    assert agreement.value == pytest.approx(0.9)
    assert agreement.low < 0.9 < agreement.high
    assert speed_up.value == pytest.approx(2.0)
