"""Injected faults: a clean error, nothing leaks, and the device recovers or leaves the rotation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tessera.engine.backends.ascend.errors import (
    AclError,
    AclFaultError,
    AclResourceError,
    AclTimeoutError,
    AclUsageError,
    error_of,
)
from tessera.engine.backends.ascend.library import load_library
from tessera.engine.backends.ascend.runtime import Runtime
from tessera.engine.backends.ascend.session import AscendSession
from tessera.engine.errors import BackendUnavailableError, DeviceError, EngineError, ModelError
from tests.ascend.double_builds import Double, build_stub
from tests.unit.models.tiny import tiny_images
from tests.waiting import until

IMAGES = tiny_images(3)
SITES = ("setdevice", "malloc", "mallochost", "stream", "load", "gear", "memcpy", "submit", "execute", "lost")


def opened(double: Double, path: Path, **options: object) -> AscendSession:
    return AscendSession(path, runtime=Runtime(double.library()), first_retry=0.02, **options)  # type: ignore[arg-type]


def healthy(session: AscendSession) -> list[bool]:
    return [status.healthy for status in session.devices()]


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACL_DOUBLE_DEVICES", "2")


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("step", range(4))
def test_a_load_that_fails_anywhere_leaves_nothing_behind(site: str, step: int, tmp_path: Path, float_om: Path) -> None:
    double = Double(tmp_path)
    double.set_faults(f"{site}=207001*1+{step}")
    raised = ""
    try:
        opened(double, float_om).close()
    except EngineError as error:
        raised = str(error)
    assert ("207001" in raised and "CANN says" in raised) or step > 0
    double.assert_clean()


@pytest.mark.parametrize("step", range(0, 400, 13))
def test_a_device_that_is_lost_anywhere_leaves_nothing_behind(step: int, double: Double, float_om: Path) -> None:
    double.set_faults(f"lost=507010+{step}")

    def use() -> None:
        with opened(double, float_om) as session:
            while True:
                session.run(IMAGES)

    with pytest.raises(EngineError, match="507010"):
        use()
    double.assert_clean()


@pytest.mark.parametrize(("site", "code"), [("memcpy", 207001), ("submit", 207008), ("gear", 145013)])
def test_what_may_pass_fails_one_run_and_no_more(site: str, code: int, double: Double, float_om: Path) -> None:
    session = opened(double, float_om)
    expected = session.run(IMAGES)
    double.set_faults(f"{site}={code}*1")
    with pytest.raises(DeviceError, match=f"device 0: .*{code}.*CANN says"):
        session.run(IMAGES)
    assert healthy(session) == [True]
    np.testing.assert_array_equal(session.run(IMAGES), expected)
    session.close()
    double.assert_clean()


@pytest.mark.parametrize("fault", ["execute=507015*1", "lost=507010*3", "submit=507011*1", "memcpy=507013*1"])
def test_a_device_that_fails_is_set_up_again(fault: str, double: Double, float_om: Path) -> None:
    session = opened(double, float_om)
    expected = session.run(IMAGES)
    double.set_faults(fault)
    with pytest.raises(DeviceError, match=r"device 0: .*5070\d\d.*CANN says"):
        session.run(IMAGES)
    until(lambda: healthy(session) == [True])
    np.testing.assert_array_equal(session.run(IMAGES), expected)
    (status,) = session.devices()
    assert status.failures == 1
    assert "5070" in status.last_error
    session.close()
    double.assert_clean()


def test_a_device_that_stays_broken_stays_out(double: Double, float_om: Path) -> None:
    session = opened(double, float_om)
    double.set_faults("execute=507015*1;setdevice=507033")
    with pytest.raises(DeviceError, match="507015"):
        session.run(IMAGES)
    until(lambda: "507033" in session.devices()[0].last_error)
    for _ in range(3):
        with pytest.raises(DeviceError, match=r"No Ascend device is in the rotation.*507033.*tried again"):
            session.run(IMAGES)
    double.set_faults("")
    until(lambda: healthy(session) == [True])
    session.run(IMAGES)
    session.close()
    double.assert_clean()


@pytest.mark.usefixtures("two_devices")
def test_the_other_device_takes_over_and_the_client_sees_nothing(double: Double, float_om: Path) -> None:
    session = opened(double, float_om)
    batches = [tiny_images(1 + number % 4, seed=number) for number in range(32)]
    expected = [session.run(batch) for batch in batches]
    double.set_faults("lost@1=507010")
    with ThreadPoolExecutor(8) as threads:
        for got, wanted in zip(threads.map(session.run, batches), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)
    assert healthy(session) == [True, False]
    assert "heartbeat" in session.devices()[1].last_error
    double.set_faults("")
    until(lambda: healthy(session) == [True, True])
    session.close()
    double.assert_clean()


@pytest.mark.usefixtures("two_devices")
def test_many_threads_and_one_failure_after_the_other(double: Double, float_om: Path) -> None:
    session = opened(double, float_om)
    batches = [tiny_images(1 + number % 20, seed=number) for number in range(60)]
    expected = [session.run(batch) for batch in batches]
    double.set_faults("execute@0=507015*3+20;memcpy@1=507013*2+40;submit@0=207008*2+30;lost@1=507010*4+400")

    def answered(number: int) -> bool:
        try:
            got = session.run(batches[number])
        except DeviceError:
            return False
        np.testing.assert_allclose(got, expected[number], rtol=1e-4, atol=1e-3)
        return True

    with ThreadPoolExecutor(8) as threads:  # whoever is told of a failure asks again, as clients do
        list(threads.map(lambda number: until(lambda: answered(number)), range(60)))
    double.set_faults("")
    until(lambda: healthy(session) == [True, True])
    np.testing.assert_allclose(session.run(batches[19]), expected[19], rtol=1e-4, atol=1e-3)
    session.close()
    double.assert_clean()


@pytest.mark.parametrize("variant", ["plain", "cann6"])
def test_a_device_that_does_not_answer_in_time(variant: str, tmp_path: Path, float_om: Path) -> None:
    double = Double(tmp_path, variant)
    session = opened(double, float_om)
    expected = session.run(IMAGES)
    double.set_faults("hang=1*1")  # ends while the device is taken down
    with pytest.raises(DeviceError, match="507046"):
        session.run(IMAGES)
    until(lambda: healthy(session) == [True])
    np.testing.assert_allclose(session.run(IMAGES), expected, rtol=1e-4)
    session.close()
    double.assert_clean()


def test_a_device_that_never_answers(tmp_path: Path, float_om: Path) -> None:
    double = Double(tmp_path)
    session = opened(double, float_om)
    session.run(IMAGES)
    double.set_faults("hang=1000*1")
    with pytest.raises(DeviceError, match="507046"):
        session.run(IMAGES)
    until(lambda: healthy(session) == [True])  # from 7.0 the stream can be destroyed with its work
    session.run(IMAGES)
    session.close()
    double.assert_clean()


def test_a_device_that_never_answers_and_cannot_be_stopped(tmp_path: Path, float_om: Path) -> None:
    double = Double(tmp_path, "cann6")
    session = opened(double, float_om)
    session.run(IMAGES)
    double.set_faults("hang=1000*1")
    with pytest.raises(DeviceError, match="507046"):
        session.run(IMAGES)
    with pytest.raises(DeviceError, match="No Ascend device"):
        session.run(IMAGES)
    session.close()
    report = double.report()
    assert report["violations"] == 0, "memory that the device may still write must not be freed"
    assert report["live"]["device_memory"] > 0
    double.set_faults("")


def test_an_output_size_that_does_not_fit_is_refused(double: Double, float_om: Path) -> None:
    double.set_faults("output_size=1")
    with pytest.raises(ModelError, match=r"160 bytes for output 'output'.*come to 320"):
        opened(double, float_om)
    double.set_faults("")
    double.assert_clean()


def test_closing_while_a_device_is_being_set_up_again(double: Double, float_om: Path) -> None:
    session = opened(double, float_om)
    double.set_faults("execute=507015*1;setdevice=507033")
    with pytest.raises(DeviceError):
        session.run(IMAGES)
    session.close()
    double.assert_clean()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (107002, AclUsageError),
        (145013, AclUsageError),
        (207001, AclResourceError),
        (300000, AclResourceError),
        (507010, AclFaultError),
        (507046, AclTimeoutError),
        (107019, AclTimeoutError),
        (999999, AclFaultError),
    ],
)
def test_errors_have_a_class_a_name_and_advice(code: int, kind: type[AclError]) -> None:
    error = error_of("aclrtMalloc", code, "EL0004 out of memory")
    assert type(error) is kind
    assert isinstance(error, DeviceError)
    assert str(error).startswith(f"aclrtMalloc failed with {code} (")
    assert str(error).endswith("CANN says: EL0004 out of memory")
    assert error_of("aclrtMalloc", code, "").code == code


def test_the_stub_library_is_recognised(tmp_path: Path) -> None:
    path = build_stub(tmp_path) / "libascendcl.so"
    with pytest.raises(BackendUnavailableError, match=r"100039.*stub.*LD_LIBRARY_PATH.*set_env\.sh"):
        Runtime(load_library({part: [path] for part in ("runtime", "model", "profiling")}))


def test_machines_without_devices_without_functions_and_without_a_library(
    monkeypatch: pytest.MonkeyPatch, double: Double
) -> None:
    monkeypatch.setenv("ACL_DOUBLE_DEVICES", "0")
    with pytest.raises(BackendUnavailableError, match=r"no device.*npu-smi"):
        Runtime(double.library())
    with pytest.raises(BackendUnavailableError, match=r"lacks aclInit.*older than CANN 6\.0"):
        load_library({part: ["libm.so.6"] for part in ("runtime", "model", "profiling")})
    with pytest.raises(BackendUnavailableError, match=r"found no libascendcl\.so.*set_env\.sh"):
        load_library({part: ["libascendcl-absent.so"] for part in ("runtime", "model", "profiling")})


def test_the_libraries_of_later_versions_are_found_apart(tmp_path: Path) -> None:
    first, second = Double(tmp_path), Double(tmp_path)
    library = load_library({"runtime": ["/absent.so", first.path], "model": [second.path], "profiling": ["/absent.so"]})
    library.call("aclInit", None)
    assert (first.report()["initialised"], second.report()["initialised"]) == (1, 0)
    assert not library.has("aclprofInit")


def test_another_user_of_ascendcl_in_the_process_is_no_obstacle(double: Double, float_om: Path) -> None:
    assert double.raw.aclInit(None) == 0
    with opened(double, float_om) as session:
        session.run(IMAGES)


def test_nothing_is_executed_behind_a_batch_that_did_not_end(tmp_path: Path, float_om: Path) -> None:
    double = Double(tmp_path)
    session = opened(double, float_om)
    expected = session.run(IMAGES)
    double.set_faults("hang=1000*1")

    def run(_: int) -> str:
        with pytest.raises(DeviceError) as failed:
            session.run(IMAGES)
        return str(failed.value)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run, range(2))
    assert "507046" in first
    assert "507046" in second
    assert double.report()["violations"] == 0, "the first may still run: its gear and its stream must be left alone"
    until(lambda: healthy(session) == [True])
    np.testing.assert_array_equal(session.run(IMAGES), expected)
    session.close()
    double.assert_clean()
