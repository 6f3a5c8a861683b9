"""Power is read from the files of each board, and never made up."""

import threading
import time

import pytest

from jaxkd.device import energy


def written(root, files):
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return str(root)


HWMON = "sys/class/hwmon/hwmon3"
IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
BOARDS = {
    "ina3221 (hwmon): VDD_IN": {
        f"{HWMON}/name": "ina3221", f"{HWMON}/in1_label": "VDD_IN", f"{HWMON}/in1_input": 5000,
        f"{HWMON}/curr1_input": 800, f"{HWMON}/in2_label": "VDD_CPU", f"{HWMON}/in2_input": 5000,
        f"{HWMON}/curr2_input": 100, f"{HWMON}/in3_label": "NC", f"{HWMON}/in3_input": 1,
        f"{HWMON}/curr3_input": 1,
    },
    "ina3221 (hwmon): CPU + GPU": {
        f"{HWMON}/name": "ina3221", f"{HWMON}/in1_label": "CPU", f"{HWMON}/in1_input": 5000,
        f"{HWMON}/curr1_input": 600, f"{HWMON}/in2_label": "GPU", f"{HWMON}/in2_input": 5000,
        f"{HWMON}/curr2_input": 200,
    },
    "ina3221 (hwmon): CPU + GPU + SOC": {  # two sensors, as on the larger boards
        f"{HWMON}/name": "ina3221", f"{HWMON}/in1_label": "CPU", f"{HWMON}/in1_input": 5000,
        f"{HWMON}/curr1_input": 300, f"{HWMON}/in2_label": "GPU", f"{HWMON}/in2_input": 5000,
        f"{HWMON}/curr2_input": 300, "sys/class/hwmon/hwmon4/name": "ina3221",
        "sys/class/hwmon/hwmon4/in1_label": "SOC", "sys/class/hwmon/hwmon4/in1_input": 5000,
        "sys/class/hwmon/hwmon4/curr1_input": 200,
    },
    "ina3221 (iio): POM_5V_IN": {
        f"{IIO}/rail_name_0": "POM_5V_IN", f"{IIO}/in_power0_input": 4000,
        f"{IIO}/rail_name_1": "POM_5V_GPU", f"{IIO}/in_power1_input": 500,
    },
    "ina238": {f"{HWMON}/name": "ina238", f"{HWMON}/power1_input": 4000000},
}  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
def test_watts_of_each_board(name, tmp_path):
    sensor, reason = energy.find(written(tmp_path, BOARDS[name]))
    assert (sensor.name, reason) == (name, "")
    assert sensor.watts() == pytest.approx(4.0)
    with energy.Meter(sensor, rate=500) as meter:
        time.sleep(0.3)
    result = meter.result(10, idle_watts=1.0)
    assert result["joules"] == pytest.approx(0.4 * meter.seconds, rel=0.1)
    assert result["joules_above_idle"] == pytest.approx(0.3 * meter.seconds, rel=0.15)


def test_a_counter_that_wraps(tmp_path):
    folder = "sys/class/powercap/intel-rapl:0"
    files = {f"{folder}/energy_uj": 900000, f"{folder}/max_energy_range_uj": 1000000,
             f"{folder}/name": "package-0", f"{folder}:0/energy_uj": 5}  # fmt: skip
    sensor, _ = energy.find(written(tmp_path, files))
    assert sensor.name == "rapl: package-0"

    def wrap():
        time.sleep(0.1)
        written(tmp_path, {f"{folder}/energy_uj": 200000})

    writer = threading.Thread(target=wrap)
    with energy.Meter(sensor, rate=500) as meter:
        writer.start()
        time.sleep(0.3)
    writer.join()
    assert meter.joules == pytest.approx(0.3)


def test_no_sensor_and_few_readings_say_why(tmp_path):
    sensor, reason = energy.find(str(tmp_path))
    assert sensor is None and "INA3221" in reason
    with energy.Meter(sensor, reason) as meter:
        pass
    assert meter.result(3)["joules"] is None and meter.result(3)["reason"] == reason
    sensor, _ = energy.find(written(tmp_path, BOARDS["ina238"]))
    with energy.Meter(sensor, rate=10) as meter:
        time.sleep(0.2)
    assert meter.result(3)["joules"] is None
    assert "readings, 50 are needed" in meter.result(3)["reason"]


def test_the_board_is_named(tmp_path):
    root = written(tmp_path, {
        "proc/device-tree/model": "NVIDIA Jetson Nano 2GB Developer Kit\0",
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1\nmore",
        "var/lib/nvpmodel/status": "pmode:0000",
        "sys/class/thermal/thermal_zone0/temp": 45500,
        "sys/class/thermal/thermal_zone1/temp": 41000,
    })  # fmt: skip
    described = energy.machine(root)
    assert described["machine"] == "NVIDIA Jetson Nano 2GB Developer Kit"
    assert described["release"] == "# R32 (release), REVISION: 7.1"
    assert described["power_mode"] == "0000"
    assert energy.temperature(root) == 45.5
    assert energy.temperature(str(tmp_path / "none")) is None
