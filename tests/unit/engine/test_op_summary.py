"""msprof's op_summary, as chips of both kinds write it, and how its operators find their layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.backends.ascend.chips import CHIPS, find_chip
from tessera.engine.backends.ascend.op_summary import Task, operator_times, origin, read_op_summary
from tessera.engine.errors import ModelError

# 310B, 910B: prefixed columns, vector columns of the 310B not counted, timestamps with a tab behind them.
PREFIXED = (
    "Device_id,Model ID,Task ID,Stream ID,Op Name,OP Type,OP State,Task Type,Task Start Time(us),Task Duration(us),"
    "Task Wait Time(us),Block Num,Mix Block Num,Input Shapes,Input Data Types,aicore_time(us),aic_total_cycles,"
    "aic_mac_ratio,aiv_vec_ratio,cube_utilization(%)\n"
    '0,1,2,3,trans_TransData_0,TransData,static,AI_CORE,1762.10\t,12.5,0,1,0,"16,3,224,224",FLOAT16,12,14000,0.0,N/A,70\n'
    '0,1,3,3,conv1bn1.relu,Conv2D,static,AI_CORE,1775.20\t,310.25,0.5,1,0,"16,1,224,224,16;49,4,16,16;64",'
    "FLOAT16,308,380000,0.61,N/A,99\n"
)
# 310, 310P, 910: no prefix.
PLAIN = (
    "Device_id,Model Name,Model ID,Task ID,Stream ID,Infer ID,Op Name,OP Type,Task Type,Task Start Time,"
    "Task Duration(us),Task Wait Time(us),Block Dim,Input Shapes,aicore_time(us),total_cycles,mac_ratio,vec_ratio\n"
    '0,r,1,3,3,1,conv1,Conv2D,AI_CORE,88,200.5,0,8,"16,1,224,224,16",199,211000,0.5,0.2\n'
)
LAYERS = [
    "conv1",
    "layer1.0.conv1",
    "layer1.0.conv2",
    "layer1.0.downsample.0",
    "layer3.1.conv1",
    "layer3.11.conv1",
    "fc",
]


def written(folder: Path, text: str) -> Path:
    path = folder / "op_summary_0_1.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_of_310b_and_910b(tmp_path: Path) -> None:
    assert read_op_summary(written(tmp_path, PREFIXED), (16,)) == [
        Task("trans_TransData_0", "TransData", 12.5, 16, mac_ratio=0.0, core_share=0.70),
        Task("conv1bn1.relu", "Conv2D", 310.25, 16, mac_ratio=0.61, core_share=0.99),
    ]


def test_columns_of_310_and_310p(tmp_path: Path) -> None:
    assert read_op_summary(written(tmp_path, "\ufeff" + PLAIN), (16,)) == [
        Task("conv1", "Conv2D", 200.5, 16, mac_ratio=0.5)
    ]


def test_a_ratio_that_is_not_counted_is_unknown(tmp_path: Path) -> None:
    (task,) = read_op_summary(written(tmp_path, PLAIN.replace(",0.5,0.2", ",N/A,N/A")), (16,))
    assert task.mac_ratio is None


@pytest.mark.parametrize(
    ("name", "operator", "batch"),
    [
        ("conv1_ascend_mbatch_batch_0", "conv1", 1),
        ("conv1_ascend_mbatch_batch_1", "conv1", 2),
        ("conv1_ascend_mbatch_batch_4", "conv1", 16),
        ("conv1_ascend_mbatch_batch_3relu_ascend_mbatch_batch_3", "conv1relu", 8),
        ("conv1_ascend_mbatch_batch_34.relu_ascend_mbatch_batch_3", "conv14.relu", 8),
        ("conv1", "conv1", 16),
        ("conv1_ascend_mbatch_batch_9", "conv1", 16),
    ],
)
def test_the_mark_is_the_number_of_the_gear(tmp_path: Path, name: str, operator: str, batch: int) -> None:
    """GE's multi-batch clone pass counts the copies; where the mark says nothing, the first dimension does."""
    (task,) = read_op_summary(written(tmp_path, PLAIN.replace("conv1,Conv2D", f"{name},Conv2D")), (1, 2, 4, 8, 16))
    assert (task.name, task.batch) == (operator, batch)


def test_a_first_dimension_that_is_no_batch_size_says_nothing(tmp_path: Path) -> None:
    (task,) = read_op_summary(written(tmp_path, PLAIN), (1, 2))
    assert task.batch is None


def test_bandwidths_are_those_that_the_chip_counts(tmp_path: Path) -> None:
    text = (
        "Op Name,OP Type,Task Duration(us),aic_l1_read_bw(GB/s),aic_l1_write_bw(GB/s),aic_l2_read_bw,aic_l2_write_bw,"
        "aic_main_mem_read_bw(GB/s),aic_main_mem_write_bw(GB/s),aiv_main_mem_read_bw(GB/s),aiv_ub_read_bw(GB/s)\n"
        "a,Conv2D,5,100,20,30,N/A,7,2,0,N/A\nb,Relu,5,0,0,N/A,N/A,0,0,9,40\n"
    )
    first, second = read_op_summary(written(tmp_path, text), (1,))
    assert first.bandwidths == {"L1": 120.0, "L2": 30.0, "memory": 9.0}
    assert second.bandwidths == {"UB": 40.0, "L1": 0.0, "memory": 9.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no tasks"),
        (PLAIN.splitlines()[0] + "\n", "holds no tasks"),
        ("Op Name,OP Type,Duration\na,b,1\n", r"no column Task Duration\(us\)"),
        (PLAIN.replace("200.5", "N/A"), "without name or duration: 'conv1'"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_op_summary(written(tmp_path, text), (1,))


@given(junk=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(junk: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("junk") / "op_summary.csv"
    path.write_bytes(junk)
    with pytest.raises(ModelError):
        read_op_summary(path, (1,))


def test_medians_per_operator_of_one_batch_size() -> None:
    tasks = [Task("a", "Conv2D", time, 16, mac_ratio=ratio) for time, ratio in ((9.0, 0.5), (1.0, 0.7), (2.0, 0.6))]
    tasks += [Task("b", "ReduceMean", 4.0, None), Task("a", "Conv2D", 100.0, 1, mac_ratio=0.1)]
    first, second = operator_times(tasks, 16)
    assert (first.name, first.microseconds, first.mac_ratio) == ("a", 2.0, 0.6)
    assert (second.name, second.microseconds, second.mac_ratio) == ("b", 4.0, None)
    tasks = [Task("a", "Conv2D", 1.0, 16, bandwidths={"L1": rate}) for rate in (5.0, 1.0, 3.0)]
    assert operator_times(tasks, 16)[0].bandwidths == {"L1": 3.0}


@pytest.mark.parametrize(
    ("operator", "layer"),
    [
        ("conv1", "conv1"),
        ("conv1bn1.relu", "conv1"),
        ("layer1.0.conv2layer1.0.bn2.relu", "layer1.0.conv2"),
        ("layer1_0_downsample_0", "layer1.0.downsample.0"),
        ("layer3.11.conv1", "layer3.11.conv1"),
        ("layer3.1.conv1layer3.1.bn1.relu", "layer3.1.conv1"),
        ("fc/MatMulV2", "fc"),
        ("trans_TransData_0", None),
        ("conv10", None),
        ("maxpool", None),
    ],
)
def test_an_operator_belongs_to_the_layer_that_it_begins_with(operator: str, layer: str | None) -> None:
    assert origin(operator, LAYERS) == layer


def test_every_layer_finds_itself() -> None:
    assert [origin(layer, LAYERS) for layer in LAYERS] == LAYERS


def test_peaks_are_those_of_the_platform_files() -> None:
    """Figures in MAC/s; twice that is FLOPS."""
    known = {"Ascend310B1": (10.03, 20.05), "Ascend310B4": (4.10, 8.19), "Ascend310P3": (69.5, 138.9)}
    known["Ascend910B3"] = (294.9, 589.8)
    for soc, (fp16, int8) in known.items():
        assert 2e-12 * CHIPS[soc].peak("fp16") == pytest.approx(fp16, abs=0.06)
        assert 2e-12 * CHIPS[soc].peak("int8") == pytest.approx(int8, abs=0.06)
    assert find_chip("Ascend310") is None
    with pytest.raises(ValueError, match="fp16 or int8"):
        CHIPS["Ascend310B1"].peak("fp32")
