"""The double enforces AscendCL's rules: what it would let pass, no test of the backend could notice."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from ctypes import byref, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ascend.conftest import opened
from tests.ascend.double_builds import Double
from tests.ascend.headers import Batches, Dims

H2D, D2H = 1, 2
SHAPE_INPUT = b"ascend_mbatch_shape_data"


class Loaded:
    """A model with datasets, driven by hand."""

    def __init__(self, double: Double, path: Path) -> None:
        self.acl = acl = double.raw
        self.id = c_uint32()
        assert acl.aclmdlLoadFromFile(bytes(path), byref(self.id)) == 0
        self.desc = acl.aclmdlCreateDesc()
        assert acl.aclmdlGetDesc(self.desc, self.id) == 0
        self.input_bytes = acl.aclmdlGetInputSizeByIndex(self.desc, 0)
        self.output_bytes = acl.aclmdlGetOutputSizeByIndex(self.desc, 0)
        self.input, self.output = self.malloc(self.input_bytes), self.malloc(self.output_bytes)
        self.shape = self.malloc(acl.aclmdlGetInputSizeByIndex(self.desc, 1))
        self.inputs = self.dataset((self.input, self.input_bytes), (self.shape, 8))
        self.outputs = self.dataset((self.output, self.output_bytes))
        self.stream = c_void_p()
        assert acl.aclrtCreateStream(byref(self.stream)) == 0

    def malloc(self, size: int) -> c_void_p:
        address = c_void_p()
        assert self.acl.aclrtMalloc(byref(address), size, 0) == 0
        return address

    def dataset(self, *buffers: tuple[c_void_p, int]) -> int:
        dataset: int = self.acl.aclmdlCreateDataset()
        for address, size in buffers:
            assert self.acl.aclmdlAddDatasetBuffer(dataset, self.acl.aclCreateDataBuffer(address, size)) == 0
        return dataset

    def gear(self, size: int) -> int:
        code: int = self.acl.aclmdlSetDynamicBatchSize(self.id, self.inputs, 1, size)
        return code

    def upload(self, images: np.ndarray) -> None:
        assert self.acl.aclrtMemcpy(self.input, self.input_bytes, images.ctypes.data, images.nbytes, H2D) == 0

    def read(self) -> np.ndarray:
        rows = np.empty(self.output_bytes // 4, np.float32)
        assert self.acl.aclrtMemcpy(rows.ctypes.data, rows.nbytes, self.output, rows.nbytes, D2H) == 0
        return rows.reshape(16, -1)

    def execute(self) -> int:
        code: int = self.acl.aclmdlExecute(self.id, self.inputs, self.outputs)
        return code

    def execute_async(self) -> int:
        code: int = self.acl.aclmdlExecuteAsync(self.id, self.inputs, self.outputs, self.stream)
        return code


def violations(double: Double) -> int:
    count: int = double.report()["violations"]
    return count


def in_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def images(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 32, 32)).astype(np.float32)


def test_1_nothing_works_before_init_and_init_works_once(double: Double) -> None:
    count = c_uint32()
    assert double.raw.aclrtGetDeviceCount(byref(count)) == 100001
    assert double.raw.aclrtSetDevice(0) == 100001
    assert double.raw.aclmdlCreateDesc() is None
    assert double.raw.aclInit(None) == 0
    assert double.raw.aclInit(None) == 100002
    assert double.raw.aclrtGetDeviceCount(byref(count)) == 0
    assert double.raw.aclrtSetDevice(7) == 107001


def test_2_the_context_belongs_to_the_thread(double: Double) -> None:
    acl = opened(double).raw
    address, context = c_void_p(), c_void_p()
    assert in_thread(lambda: acl.aclrtMalloc(byref(address), 64, 0)) == 107002
    assert acl.aclrtGetCurrentContext(byref(context)) == 0

    def with_context() -> int:
        assert acl.aclrtSetCurrentContext(context) == 0
        code: int = acl.aclrtMalloc(byref(address), 64, 0)
        return code

    assert in_thread(with_context) == 0
    made = c_void_p()
    assert acl.aclrtCreateContext(byref(made), 0) == 0
    assert acl.aclrtDestroyContext(made) == 0
    assert acl.aclrtMalloc(byref(address), 64, 0) == 107002, "a destroyed context is current nowhere"
    assert acl.aclrtSetCurrentContext(made) == 107017


def test_3_setting_a_device_is_counted(double: Double) -> None:
    acl = opened(double).raw
    assert acl.aclrtSetDevice(0) == 0
    assert acl.aclrtResetDevice(0) == 0
    address = c_void_p()
    assert acl.aclrtMalloc(byref(address), 64, 0) == 0
    assert acl.aclrtFree(address) == 0
    assert acl.aclrtResetDevice(0) == 0
    assert acl.aclrtMalloc(byref(address), 64, 0) == 107002
    assert violations(double) == 0
    assert acl.aclrtResetDevice(0) == 107001
    assert violations(double) == 1


def test_4_copies_are_checked(double: Double) -> None:
    acl = opened(double).raw
    address, host = c_void_p(), np.zeros(128, np.uint8)
    assert acl.aclrtMalloc(byref(address), 0, 0) == 100000
    assert acl.aclrtMalloc(byref(address), 128, 3) == 107018, "peer-to-peer memory does not exist on 310B"
    assert acl.aclrtMalloc(byref(address), 128, 0) == 0
    data = host.ctypes.data
    assert acl.aclrtMemcpy(address, 128, data, 128, H2D) == 0
    assert acl.aclrtMemcpy(address, 64, data, 128, H2D) == 107000, "destMax < count"
    assert acl.aclrtMemcpy(address, 256, data, 128, H2D) == 107000, "destMax is more than there is"
    assert acl.aclrtMemcpy(address, 128, data, 128, D2H) == 107000, "the wrong way"
    assert acl.aclrtMemcpy(data, 128, data, 128, H2D) == 107000, "no device memory"
    assert acl.aclrtMemcpy(data, 128, address.value + 1, 128, D2H) == 107000, "past the end"
    assert acl.aclrtFreeHost(address) == 107000
    assert acl.aclrtFree(address) == 0
    assert violations(double) == 1
    assert acl.aclrtFree(address) == 107000
    assert violations(double) == 2, "freed twice"


def test_4_writing_past_a_block_and_leaks_are_noticed(double: Double) -> None:
    acl = opened(double).raw
    host = c_void_p()
    assert acl.aclrtMallocHost(byref(host), 100) == 0
    assert host.value is not None
    ctypes.memset(host.value + 100, 0, 1)
    assert double.report()["live"]["host_memory"] == 1
    assert acl.aclrtFreeHost(host) == 0
    assert "past the ends" in double.report()["first_violation"]
    assert acl.aclrtMallocHost(byref(host), 100) == 0
    acl.aclrtResetDevice(0)
    with pytest.raises(AssertionError):
        double.assert_clean()


def test_5_memory_is_aligned_and_starts_as_garbage(double: Double) -> None:
    acl = opened(double).raw
    rows = np.zeros(100, np.uint8)
    for size in (1, 33, 100):
        address = c_void_p()
        assert acl.aclrtMalloc(byref(address), size, 0) == 0
        assert address.value is not None
        assert address.value % 64 == 0
        assert acl.aclrtMemcpy(rows.ctypes.data, 100, address, size, D2H) == 0
        assert (rows[:size] == 255).all()


def test_6_files_are_checked(double: Double, float_om: Path, tmp_path: Path) -> None:
    acl = opened(double).raw
    model = c_uint32()
    whole = float_om.read_bytes()
    assert acl.aclmdlLoadFromFile(bytes(tmp_path / "absent.om"), byref(model)) == 145002
    for name, content in (("magic", b"OMID" + whole[4:]), ("short", whole[:-1]), ("tiny", whole[:100])):
        (tmp_path / name).write_bytes(content)
        assert acl.aclmdlLoadFromFile(bytes(tmp_path / name), byref(model)) == 145006
        work, weights = c_size_t(), c_size_t()
        assert acl.aclmdlQuerySize(bytes(tmp_path / name), byref(work), byref(weights)) == 145006
    (tmp_path / "plan").write_bytes(whole.replace(b"avgpool", b"evilop!"))
    assert acl.aclmdlLoadFromFile(bytes(tmp_path / "plan"), byref(model)) == 545001
    assert double.report()["live"]["device_memory"] == 0


def test_7_dynamic_batch(double: Double, float_om: Path) -> None:
    acl = opened(double).raw
    loaded = Loaded(double, float_om)
    batches, dims, index = Batches(), Dims(), c_size_t()
    assert acl.aclmdlGetNumInputs(loaded.desc) == 2
    assert acl.aclmdlGetInputIndexByName(loaded.desc, SHAPE_INPUT, byref(index)) == 0
    assert index.value == 1
    assert acl.aclmdlGetDynamicBatch(loaded.desc, byref(batches)) == 0
    assert batches.batch[: batches.batchCount] == [1, 2, 4, 8, 16]
    assert acl.aclmdlGetInputDims(loaded.desc, 0, byref(dims)) == 0
    assert dims.dims[: dims.dimCount] == [-1, 3, 32, 32]
    assert loaded.input_bytes == 16 * 3 * 32 * 32 * 4
    assert [loaded.gear(size) for size in (0, 3, 32, 4)] == [100000, 145013, 145013, 0]
    assert acl.aclmdlGetCurOutputDims(loaded.desc, 0, byref(dims)) == 0
    assert dims.dims[0] == 4
    second = Loaded(double, float_om)
    assert acl.aclmdlGetCurOutputDims(second.desc, 0, byref(dims)) == 0
    assert dims.dims[0] == 16, "the gear belongs to one model"


def test_8_datasets_are_checked(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    acl, good = loaded.acl, (loaded.inputs, loaded.outputs)
    assert loaded.gear(1) == 0
    image, shape = (loaded.input, loaded.input_bytes), (loaded.shape, 8)
    for inputs in ([image], [(loaded.input, loaded.input_bytes // 2), shape], [image, shape, shape]):
        assert acl.aclmdlExecute(loaded.id, loaded.dataset(*inputs), good[1]) == 100017
    host = np.zeros(loaded.output_bytes, np.uint8)
    for address, size in ((loaded.output, 4), (c_void_p(host.ctypes.data), loaded.output_bytes)):
        assert acl.aclmdlExecute(loaded.id, good[0], loaded.dataset((address, size))) == 100018
    assert acl.aclmdlExecute(99, *good) == 145003
    assert acl.aclmdlAddDatasetBuffer(good[0], None) == 100000


def test_9_a_model_does_not_run_twice_at_once(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    assert loaded.gear(1) == 0
    double.set_faults("hold=1")
    assert loaded.execute_async() == 0
    assert loaded.execute() == 500001
    assert "twice at once" in double.report()["first_violation"]
    assert loaded.gear(2) == 500001
    assert violations(double) == 2
    double.set_faults("")
    assert loaded.acl.aclrtSynchronizeStream(loaded.stream) == 0
    assert loaded.execute() == 0


def test_9_a_model_stays_in_its_context(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    assert loaded.gear(1) == 0
    other = c_void_p()
    assert loaded.acl.aclrtCreateContext(byref(other), 0) == 0
    assert loaded.execute() == 107003
    assert violations(double) == 1


def test_9_the_gear_must_be_set_with_the_dataset_that_runs(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    assert loaded.gear(8) == 0
    foreign = loaded.dataset((loaded.input, loaded.input_bytes), (loaded.malloc(8), 8))
    assert loaded.acl.aclmdlSetDynamicBatchSize(loaded.id, foreign, 1, 4) == 0
    assert loaded.execute() == 0
    assert "another dataset" in double.report()["first_violation"]


def test_10_results_are_seen_after_synchronising(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    loaded.upload(images())
    assert loaded.gear(16) == 0
    assert loaded.execute() == 0
    expected = loaded.read()
    double.set_faults("hang=9")
    assert loaded.execute_async() == 0
    assert np.isnan(loaded.read()).all()
    assert violations(double) == 1, "and the host must not even look"
    assert loaded.acl.aclrtSynchronizeStreamWithTimeout(loaded.stream, 1) == 507046
    double.set_faults("")
    assert loaded.acl.aclrtSynchronizeStream(loaded.stream) == 0
    assert np.array_equal(loaded.read(), expected)


def test_10_what_hangs_runs_out_of_time_as_often_as_told(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    assert loaded.gear(16) == 0
    double.set_faults("hang=2")
    for _ in range(100):
        assert loaded.execute_async() == 0
        answers = [loaded.acl.aclrtSynchronizeStreamWithTimeout(loaded.stream, 1) for _ in range(3)]
        assert answers == [507046, 507046, 0]


def test_10_buffers_in_use_are_left_alone(double: Double, float_om: Path) -> None:
    opened(double)
    loaded = Loaded(double, float_om)
    assert loaded.gear(16) == 0
    double.set_faults("hold=1")
    assert loaded.execute_async() == 0
    loaded.upload(images())
    assert violations(double) == 1
    assert loaded.acl.aclrtDestroyStream(loaded.stream) == 0
    assert violations(double) == 2, "a stream with work"


def test_11_it_computes_the_network(double: Double, float_om: Path, network: Path) -> None:
    from tessera import engine

    opened(double)
    loaded = Loaded(double, float_om)
    batch = images()
    loaded.upload(batch)
    assert loaded.gear(4) == 0
    assert loaded.execute() == 0
    rows = loaded.read()
    with engine.load(network, backend="onnxruntime") as reference:
        np.testing.assert_allclose(rows[:4], reference.run(batch[:4]), rtol=1e-4, atol=1e-3)
    assert np.isnan(rows[4:]).all(), "rows past the gear are not written"


def test_12_the_message_is_per_thread_and_read_once(double: Double) -> None:
    acl = opened(double).raw
    assert acl.aclrtSetDevice(5) == 107001
    assert in_thread(acl.aclGetRecentErrMsg) is None
    assert b"device 5" in acl.aclGetRecentErrMsg()
    assert acl.aclGetRecentErrMsg() is None


def test_13_faults_strike_where_and_when_they_are_told(double: Double) -> None:
    acl = opened(double).raw
    address = c_void_p()

    def codes(count: int) -> list[int]:
        return [acl.aclrtMalloc(byref(address), 64, 0) for _ in range(count)]

    double.set_faults("malloc=207001*2+1")
    assert codes(4) == [0, 207001, 207001, 0]
    double.set_faults("malloc@1=207001;lost@0=507010*1")
    assert codes(2) == [507010, 0]


def test_14_the_builds_differ_as_they_should(tmp_path: Path) -> None:
    mode = c_int()
    early = Double(tmp_path, "cann6")
    for name in ("aclrtGetDeviceUtilizationRate", "aclrtDestroyStreamForce", "aclrtResetDeviceForce"):
        assert hasattr(Double(tmp_path).raw, name)
        assert not hasattr(early.raw, name)
    board = opened(Double(tmp_path, "rc"))
    assert board.raw.aclrtGetRunMode(byref(mode)) == 0
    assert mode.value == 0
    address, device = c_void_p(), c_int32(7)
    assert board.raw.aclrtMalloc(byref(address), 64, 0) == 0
    assert address.value is not None
    ctypes.memset(address.value, 1, 64)
    assert board.raw.aclrtGetDevice(byref(device)) == 0
    assert device.value == 0
