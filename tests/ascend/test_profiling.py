"""Profiles of an .om model: aclprof of the double, and an msprof that writes the tables of a 310B."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tessera.engine.backends.ascend.chips import CHIPS
from tessera.engine.backends.ascend.runtime import Runtime
from tessera.engine.backends.ascend.session import AscendSession
from tessera.engine.errors import BackendUnavailableError, EngineError, InputError
from tessera.engine.graph.reader import read_model
from tessera.engine.profile import layer_costs
from tessera.models.resnet import build_resnet
from tests.ascend.double_builds import Double, build
from tests.ascend.omfile import write_om
from tests.ascend.test_serving import converted
from tests.servers import tessera
from tests.unit.models.tiny import LABELS, MEAN, STD, tiny_state

# Writes what the real one would have written of what the double recorded, for a 310B: names are marked with the number
# of the gear. One microsecond more per layer; the first execution of every batch size is slower than the others.
MSPROF = """
import csv, os, sys
assert sys.argv[1] == "--export=on", sys.argv
record = sys.argv[2].removeprefix("--output=")
assert os.path.isdir(record) and os.path.basename(record).startswith("PROF_"), record
layers = open(os.environ["LAYERS"]).read().split()
metrics, *executions = open(record + "/executions").read().splitlines()
columns = {
    "1": {"aic_mac_ratio": "0.5", "aiv_vec_ratio": "N/A", "cube_utilization(%)": "97.5"},
    "2": {"aic_ub_read_bw(GB/s)": "N/A", "aic_ub_write_bw(GB/s)": "N/A", "aic_l1_read_bw(GB/s)": "120.5",
          "aic_l1_write_bw(GB/s)": "30", "aic_main_mem_read_bw(GB/s)": "17", "aic_main_mem_write_bw(GB/s)": "N/A"},
}[metrics]
os.makedirs(record + "/mindstudio_profiler_output")
seen = set()
with open(record + "/mindstudio_profiler_output/op_summary_20240101.csv", "w", newline="") as file:
    out = csv.writer(file)
    out.writerow(["Op Name", "OP Type", "Task Type", "Task Duration(us)", "Input Shapes", *columns])
    for execution in executions:
        number, batch = map(int, execution.split())
        mark = f"_ascend_mbatch_batch_{number}" if number >= 0 else ""
        out.writerow(["trans_TransData_0", "TransData", "AI_CORE", "5", f'"{batch},3,32,32"', *["N/A"] * len(columns)])
        for place, layer in enumerate(layers):
            time = 10 * batch + place + (0 if batch in seen else 100)
            name, shape = layer + mark + "Relu" + mark, f'"{batch},1,9,9,16"'
            out.writerow([name, "Conv2D", "AI_CORE", f"{time}\\t", shape, *columns.values()])
        seen.add(batch)
"""


@pytest.fixture
def layers(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The convolutions and the classifier of the network; msprof is on the PATH and knows them."""
    names = [name for name, cost in layer_costs(read_model(network)).items() if cost.macs]
    (tmp_path / "layers").write_text("\n".join(names))
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "msprof"
    command.write_text(f"#!{sys.executable} -IS\n{MSPROF}")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LAYERS", str(tmp_path / "layers"))
    return names


def test_layers_have_the_devices_times_and_their_share_of_the_peak(
    double: Double, network: Path, pixel_om: Path, layers: list[str]
) -> None:
    with AscendSession(pixel_om, graph=network, runtime=Runtime(double.library())) as session:
        rows = session.profile(np.zeros((4, 32, 32, 3), np.uint8), runs=2)
        info = session.describe()
    assert [row.name for row in rows] == ["trans_TransData_0", *layers]
    costs = layer_costs(read_model(network))
    for number, row in enumerate(rows[1:]):
        assert row.milliseconds == pytest.approx((40 + number) / 1e3), "medians, of this batch size only"
        assert row.macs == 4 * costs[row.name].macs
        assert row.layer_class == costs[row.name].layer_class
        assert (row.mac_ratio, row.core_share) == (0.5, 0.975)
        assert row.bandwidths == {"L1": 150.5, "memory": 17.0}, "the 310B does not count the UB"
        peak = CHIPS[info.isa].peak("fp16")
        assert row.peak_share == pytest.approx(row.macs / (row.milliseconds / 1e3) / peak)
    assert rows[0].macs == 0
    assert sum(row.macs for row in rows) == 4 * info.macs
    double.assert_clean()


@pytest.mark.parametrize("gears", [(1, 2, 4, 8, 16), (16, 4, 1)], ids=str)
def test_every_batch_size_has_its_own_times(
    double: Double, network: Path, layers: list[str], tmp_path: Path, gears: tuple[int, ...]
) -> None:
    om = write_om(network, tmp_path / "gears.om", gears=gears)
    with AscendSession(om, graph=network, runtime=Runtime(double.library())) as session:
        for batch in gears:
            rows = session.profile(np.zeros((batch, 3, 32, 32), np.float32), runs=2)
            times = [1e3 * row.milliseconds for row in rows[1:]]
            assert times == pytest.approx([10 * batch + place for place in range(len(layers))])
    double.assert_clean()


def test_a_single_batch_size_has_no_marks(double: Double, network: Path, layers: list[str], tmp_path: Path) -> None:
    om = write_om(network, tmp_path / "static.om", batch=4)
    with AscendSession(om, graph=network, runtime=Runtime(double.library())) as session:
        rows = session.profile(np.zeros((4, 3, 32, 32), np.float32), runs=2)
    assert [row.name for row in rows] == ["trans_TransData_0", *layers]
    assert rows[1].milliseconds == pytest.approx(0.040)


def test_int8_is_measured_against_the_int8_peak(
    double: Double, network: Path, pixel_om: Path, layers: list[str]
) -> None:
    runtime, images = Runtime(double.library()), np.zeros((1, 32, 32, 3), np.uint8)
    shares = []
    for int8 in (False, True):
        with AscendSession(pixel_om, graph=network, runtime=runtime, int8=int8) as session:
            shares.append(session.profile(images, runs=1)[1].peak_share)
    assert shares[0] == pytest.approx(2 * shares[1])


def test_a_batch_that_would_be_split_is_refused(double: Double, pixel_om: Path, layers: list[str]) -> None:
    with AscendSession(pixel_om, runtime=Runtime(double.library())) as session:
        with pytest.raises(InputError, match="in one piece: 1, 2, 4, 8, 16, not 3"):
            session.profile(np.zeros((3, 32, 32, 3), np.uint8))
        with pytest.raises(InputError, match="at least one run"):
            session.profile(np.zeros((1, 32, 32, 3), np.uint8), runs=0)


def test_what_is_missing_or_fails_is_told(
    double: Double, pixel_om: Path, layers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "bin" / "msprof"
    with AscendSession(pixel_om, runtime=Runtime(double.library())) as session:
        images = np.zeros((1, 32, 32, 3), np.uint8)
        command.write_text("#!/bin/sh\necho 'no module named google'\nexit 7\n")
        with pytest.raises(EngineError, match=r"exit code 7(.|\n)*no module named google"):
            session.profile(images, runs=1)
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        with pytest.raises(BackendUnavailableError, match=r"msprof.*set_env\.sh"):
            session.profile(images, runs=1)
        assert session.run(images).shape == (1, len(LABELS)), "it still works"
    double.assert_clean()


def test_the_command_prints_the_table(layers: list[str], tmp_path: Path) -> None:
    graph = build_resnet(tiny_state(), name="small", size=224, mean=MEAN, std=STD, labels=LABELS)
    onnx.save(graph, tmp_path / "small.onnx")
    folder = converted(tmp_path / "converted", tmp_path / "small.onnx", LABELS, (1, 4))
    run = tessera(
        *("profile", "--backend", "ascend", "--batch", "4", "--runs", "2", "--model-path", str(folder)),
        LD_LIBRARY_PATH=str(build("plain")),
        LAYERS=os.environ["LAYERS"],
        PATH=os.environ["PATH"],
    )
    assert run.returncode == 0, run.stderr
    assert "baseline: ascend, fp16, Ascend310B1" in run.stdout
    assert run.stdout.count("mac ratio") >= 3, "in both tables and the summary"
    assert run.stdout.count("| layer1.0.conv2 ") == 2
    assert "converted on Ascend310B1, batch 4" in run.stdout
    summary = run.stdout[run.stdout.index("converted on Ascend310B1, batch 4") :]
    unknown = "not counted by this chip"
    assert re.search(rf"\| UB read and written, GB/s +\| +{unknown} \| +{unknown} \|", summary)
    assert re.search(r"\| memory read and written, GB/s +\| +16\.\d \| +16\.\d \|", summary), "TransData counts none"


def test_bench_splits_copies_and_execution(tmp_path: Path) -> None:
    graph = build_resnet(tiny_state(), name="small", size=224, mean=MEAN, std=STD, labels=LABELS)
    onnx.save(graph, tmp_path / "small.onnx")
    folder = converted(tmp_path / "converted", tmp_path / "small.onnx", LABELS, (16,))
    run = tessera(
        *("bench", "--backend", "ascend", "--rounds", "3", "--model-path", str(folder)),
        *("--json", str(tmp_path / "bench.json")),
        LD_LIBRARY_PATH=str(build("plain")),
    )
    assert run.returncode == 0, run.stderr
    headings = next(line for line in run.stdout.splitlines() if line.startswith("| variant"))
    assert [heading.strip() for heading in headings.split("|")[5:10]] == [
        "ms",
        "mean ms",
        "H2D ms",
        "execution ms",
        "D2H ms",
    ]
    for row in json.loads((tmp_path / "bench.json").read_text())["measurements"]:
        assert set(row["stages"]) == {"host", "h2d", "execution", "d2h"}
        for number, seconds in enumerate(row["seconds"]):
            assert 0 < sum(stage[number] for stage in row["stages"].values()) <= seconds
