"""Power of a board: INA3221 (both layouts of JetPack), INA238, RAPL of a PC, or a meter's reading.

The first sensor that answers is used, and its name is part of every result; without one the result
is None with the reason. NVML is not asked: on Tegra it opens and then knows no power.
"""

import glob
import os
import threading
import time

RATE = 50  # readings a second
LEAST = 50  # readings of a measurement that counts
TOTAL = ("POM_5V_IN", "VDD_IN", "VIN")  # rails of the whole board, by preference


class Sensor:
    """`watts()` now, or `joules()` since some moment; one of them is None."""

    def __init__(self, name, watts=None, joules=None, wraps=None):
        self.name, self.watts, self.joules, self.wraps = name, watts, joules, wraps


def find(root="/"):
    """(sensor, "") or (None, why there is none)."""
    for probe in (_hwmon, _iio, _rapl):
        sensor = probe(root)
        if sensor is not None:
            return sensor, ""
    return None, "no INA3221, INA238 or readable RAPL counter on this machine"


def _text(path):
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return None


def _number(path):
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _hwmon(root):
    """JetPack 5 and later: millivolts and milliamperes of rails; INA238 has microwatts."""
    folders = sorted(glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*")))
    kinds = {folder: _text(os.path.join(folder, "name")) for folder in folders}
    for folder in folders:
        path = os.path.join(folder, "power1_input")
        if kinds[folder] == "ina238" and _number(path) is not None:
            return Sensor("ina238", watts=lambda path=path: (_number(path) or 0.0) / 1e6)
    rails = {}
    for folder in (each for each in folders if kinds[each] == "ina3221"):  # a board may have two
        for k in range(1, 4):
            label = _text(os.path.join(folder, f"in{k}_label"))
            files = [os.path.join(folder, name) for name in (f"in{k}_input", f"curr{k}_input")]
            if label and "NC" not in label and all(_number(f) is not None for f in files):
                rails[label] = files
    if not rails:
        return None
    return _of_rails(
        "ina3221 (hwmon)",
        rails,
        lambda files: (_number(files[0]) or 0.0) * (_number(files[1]) or 0.0) / 1e6,
    )


def _iio(root):
    """JetPack 4: milliwatts of each rail."""
    pattern = os.path.join(root, "sys/bus/i2c/drivers/ina3221x/*/iio:device*")
    rails = {}
    for folder in sorted(glob.glob(pattern)):
        for k in range(3):
            label = _text(os.path.join(folder, (f"rail_name_{k}")))
            path = os.path.join(folder, (f"in_power{k}_input"))
            if label and "NC" not in label and _number(path) is not None:
                rails[label] = path
    if not rails:
        return None
    return _of_rails("ina3221 (iio)", rails, lambda path: (_number(path) or 0.0) / 1e3)


def _of_rails(name, rails, read):
    """The rail of the whole board, else the sum of all."""
    total = [label for label in TOTAL if label in rails]
    chosen = total[:1] or sorted(rails)
    return Sensor(
        "{}: {}".format(name, " + ".join(chosen)),
        watts=lambda: sum(read(rails[label]) for label in chosen),
    )


def _rapl(root):
    for folder in sorted(glob.glob(os.path.join(root, "sys/class/powercap/intel-rapl:*"))):
        path = os.path.join(folder, "energy_uj")
        if folder.count(":") == 1 and _number(path) is not None:
            wraps = (_number(os.path.join(folder, "max_energy_range_uj")) or 0.0) / 1e6
            name = f"rapl: {_text(os.path.join(folder, 'name')) or 'package'}"
            return Sensor(name, joules=lambda path=path: (_number(path) or 0.0) / 1e6, wraps=wraps)
    return None


class Meter:
    """Joules between `with` and its end, read in a thread; `result` says how it was read."""

    def __init__(self, sensor, reason="", rate=RATE):
        self.sensor, self.reason, self.rate = sensor, reason, rate
        self.joules, self.seconds, self.readings = None, 0.0, 0
        self._stop = threading.Event()

    def __enter__(self):
        self._start = time.perf_counter()
        if self.sensor is not None:
            self._energy = 0.0
            self._thread = threading.Thread(target=self._read)
            self._thread.daemon = True
            self._thread.start()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self._start
        if self.sensor is not None:
            self._stop.set()
            self._thread.join()
            self.joules = self._energy

    def _read(self):
        read = self.sensor.watts or self.sensor.joules
        before, then = read(), time.perf_counter()
        self.readings = 1
        stopped = False
        while not stopped:
            stopped = self._stop.wait(1.0 / self.rate)
            value, now = read(), time.perf_counter()
            if self.sensor.watts:
                self._energy += 0.5 * (before + value) * (now - then)
            else:
                self._energy += value - before + (self.sensor.wraps if value < before else 0.0)
            before, then = value, now
            self.readings += 1

    def result(self, inferences, idle_watts=None):
        """Joules an inference, of which `idle_watts` the board takes anyway."""
        described = {
            "sensor": None if self.sensor is None else self.sensor.name,
            "readings": self.readings,
            "seconds": self.seconds,
        }
        if self.joules is None:
            return dict(described, joules=None, reason=self.reason)
        if self.readings < LEAST:
            return dict(
                described,
                joules=None,
                reason=(f"only {self.readings} readings, {LEAST} are needed: measure longer"),
            )
        described["joules"] = self.joules / inferences
        described["watts"] = self.joules / self.seconds
        if idle_watts is not None:
            above = self.joules - idle_watts * self.seconds
            described.update(idle_watts=idle_watts, joules_above_idle=above / inferences)
        return described


def temperature(root="/"):
    """Degrees Celsius of the warmest zone; None where none can be read."""
    pattern = os.path.join(root, "sys/class/thermal/thermal_zone*/temp")
    degrees = [_number(path) for path in glob.glob(pattern)]
    known = [each / 1000 for each in degrees if each is not None and each > 0]
    return max(known) if known else None


def machine(root="/"):
    """What board or processor this is, and its release of JetPack if it has one."""
    model = _text(os.path.join(root, "proc/device-tree/model"))
    if model is None:
        lines = (_text(os.path.join(root, "proc/cpuinfo")) or "").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else None
    release = _text(os.path.join(root, "etc/nv_tegra_release"))
    status = (_text(os.path.join(root, "var/lib/nvpmodel/status")) or "").split(":")
    return {
        "machine": None if model is None else model.strip("\0"),
        "release": None if release is None else release.splitlines()[0],
        "power_mode": status[1].strip() if len(status) > 1 else None,
        "cores": os.cpu_count(),
    }
