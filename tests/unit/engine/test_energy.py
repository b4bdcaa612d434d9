"""Energy counters, in a tree like the kernel's: no machine of CI shows them."""

from __future__ import annotations

from pathlib import Path

from tessera.engine.energy import EnergyMeter


def package(root: Path, number: int, microjoules: int) -> Path:
    zone = root / f"intel-rapl:{number}"
    zone.mkdir()
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text("1000000\n")
    core = root / f"intel-rapl:{number}:0"  # a part of the package, counted in it
    core.mkdir()
    (core / "energy_uj").write_text("5\n")
    return zone


def test_packages_add_up_and_a_counter_may_begin_again(tmp_path: Path) -> None:
    zones = [package(tmp_path, 0, 100_000), package(tmp_path, 1, 900_000)]
    meter = EnergyMeter(tmp_path)
    assert meter.problem() == ""
    before = meter.read()
    (zones[0] / "energy_uj").write_text("400000\n")
    (zones[1] / "energy_uj").write_text("100000\n")
    assert meter.joules(before, meter.read()) == 0.5


def test_a_host_without_counters_says_so(tmp_path: Path) -> None:
    assert "no energy counters" in EnergyMeter(tmp_path / "nothing").problem()
    zone = package(tmp_path, 0, 1)
    (zone / "energy_uj").unlink()
    assert "cannot be read" in EnergyMeter(tmp_path).problem()
