"""An Android phone on this machine's cable: drives ONNX Runtime's own ``onnxruntime_perf_test`` there by ``adb``.

What is read is its result file, which has a line for every inference: the model's name, its seconds, peak memory, CPU
share and number; the first inference, which warms up, is not among them. Options and format are those of
microsoft/onnxruntime, ``onnxruntime/test/perftest`` (``command_args_parser.cc``, ``performance_runner.cc``).

Each visit of a round is a process on the phone, which loads the model anew: that takes tenths of a second, and is not
part of the figures. One process measures all bursts of a visit. LiteRT's ``benchmark_model`` would need the models in
another format, which nothing here writes.
"""

import hashlib
import math
import os
import re
import subprocess
import tempfile

from device_agents.runtimes import PHONE, DeviceLost, RuntimeRefused
from device_agents.runtimes.ahead import FIRST_RUNS, AheadSession
from device_agents.runtimes.conditions import check_asked

BINARY = "OFA_ADB_BINARY"  # in the environment, as PHONE
FOLDER = "/data/local/tmp"  # the one in which a shell may run programs
PROGRAM = FOLDER + "/onnxruntime_perf_test"
MODELS = FOLDER + "/ofa-agent"
ASK_S, PUSH_S, RUN_S = 30, 300, 300
PROCESS_MS = 50.0  # that a process measures at least: bursts of tiny models are over too soon to pay for one
REMEDIES = (
    ("unauthorized", "allow USB debugging on its screen"),
    ("more than one", "name one with --adb SERIAL; adb devices lists them"),
    ("offline", "unplug it and plug it in again"),
    ("", "plug it in, and see adb devices"),
)
REASONS = (  # words of ONNX Runtime's statuses, and of the system
    ("INVALID_PROTOBUF", "malformed"),
    ("Protobuf parsing failed", "malformed"),
    ("NOT_IMPLEMENTED", "unsupported-op"),
    ("Could not find an implementation", "unsupported-op"),
    ("bad_alloc", "out-of-memory"),
    ("Killed", "out-of-memory"),
)
PROPERTIES = {
    "manufacturer": ("ro.product.manufacturer",),
    "model": ("ro.product.model",),
    "soc": ("ro.soc.model", "ro.board.platform"),  # the first since Android 12
    "machine": ("ro.product.cpu.abi",),
    "android": ("ro.build.version.release",),
}
BATTERY_STATUS = {"2": "Charging", "3": "Discharging", "4": "Not charging", "5": "Full"}  # BatteryManager's numbers


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["provider"]`` is ``CPUExecutionProvider``.

    Raises:
        RuntimeRefused: this agent drives no phone, or the program is not there.
        DeviceLost: the phone is not there.
    """
    check_asked(asked, "the benchmark program", {"CPUExecutionProvider": ("fp32",)})
    if not os.environ.get(PHONE):
        raise RuntimeRefused("this agent drives no phone; start one with --adb SERIAL")
    return AdbRuntime(Phone(), asked, seed)


class Phone:
    """The phone whose serial number is in the environment; has what ``chunk.ThisMachine`` has."""

    def __init__(self):
        self._serial = os.environ[PHONE]

    def adb(self, *arguments, limit_s=ASK_S):
        """Run ``adb`` for this phone; returns its exit code and what it said.

        Raises:
            DeviceLost: it does not end in time.
            RuntimeRefused: there is no ``adb``.
        """
        command = ["adb", "-s", self._serial, *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        try:
            done = subprocess.run(command, timeout=limit_s, **pipes)
        except subprocess.TimeoutExpired as error:
            raise DeviceLost("the phone {} did not answer within {} s".format(self._serial, limit_s)) from error
        except OSError as error:
            message = "cannot run adb: {}; install Android's platform-tools".format(error.strerror)
            raise RuntimeRefused(message) from error
        return done.returncode, done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")

    def shell(self, script, limit_s=ASK_S):
        """What a shell script says on the phone.

        Raises:
            DeviceLost: the phone is away.
            RuntimeRefused: the script failed; with its last words.
        """
        return self._checked("shell", script, limit_s=limit_s)

    def push(self, source, target):
        """Copy a file of this machine to the phone, in one step."""
        self._checked("push", source, target + ".new", limit_s=PUSH_S)
        self.shell("mv {0}.new {0}".format(target))

    def _checked(self, *arguments, **limits):
        code, said = self.adb(*arguments, **limits)
        if code:
            self.check()
            words = " ".join(said.split())[-300:] or "it said nothing"
            reason = "timeout" if code == 124 else next((why for word, why in REASONS if word in said), "failed")
            raise RuntimeRefused("adb {} ended with {}: {}".format(arguments[0], code, words), reason)
        return said

    def check(self):
        """Raise ``DeviceLost`` where the phone is away: says what brings it back."""
        code, said = self.adb("get-state")
        state = said.strip()
        if code or state != "device":
            words = state.split("\n")[0] or "no answer"
            remedy = next(remedy for word, remedy in REMEDIES if word in words)
            raise DeviceLost("the phone {}: {}; {}".format(self._serial, words, remedy))

    def facts(self):
        """What the phone is."""
        values = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]$", self.shell("getprop"), re.MULTILINE))
        found = {name: next(filter(None, map(values.get, keys)), None) for name, keys in PROPERTIES.items()}
        memory = re.search(r"MemTotal:\s+([0-9]+) kB", self.shell("cat /proc/meminfo"))
        found["memory_mb"] = round(int(memory.group(1)) * 1024 / 1e6) if memory else None
        return {name: value for name, value in dict(found, adb=True).items() if value is not None}

    def state(self):
        """Battery in percent and degrees Celsius, and how far Android has throttled: 0 for not at all."""
        fields = dict(re.findall(r"^\s*([\w ]+): (\S+)$", self.shell("dumpsys battery"), re.MULTILINE))
        thermal = re.search(r"Thermal Status: ([0-9]+)", self.adb("shell", "dumpsys thermalservice")[1])  # Android 10
        found = {
            "battery_pct": _number(fields.get("level")),
            "battery_status": BATTERY_STATUS.get(fields.get("status")),
            "battery_c": _number(fields.get("temperature"), 10),
            "thermal_status": int(thermal.group(1)) if thermal else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def power_mode(self):
        """How the clocks of its cores are governed, and whether it saves its battery."""
        names = self.adb("shell", "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")[1].split("\n")
        governors = "+".join(sorted({name for name in names if re.match(r"[a-z_]+$", name)}))
        saver = self.adb("shell", "settings get global low_power")[1].strip() == "1"
        return (governors or "unknown") + (" battery-saver" if saver else "")

    @staticmethod
    def meter():
        """No power meter: a phone on a cable draws from it."""
        return NoMeter()

    def fastest_cores(self, count):
        """The numbers of so many of its fastest cores.

        Raises:
            RuntimeRefused: it has not so many.
        """
        script = "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do echo $f $(cat $f); done"
        found = re.findall(r"/cpu([0-9]+)/\S+ ([0-9]+)", self.shell(script))
        if len(found) < count:
            message = "{} threads are asked for, the phone tells of {} cores".format(count, len(found))
            raise RuntimeRefused(message)
        return sorted(core for _, core in sorted((int(khz), int(core)) for core, khz in found)[-count:])


class NoMeter:
    """A power meter that says nothing."""

    def sample(self):
        """Nothing to look at."""

    def facts(self):
        """Nothing was seen."""
        return {}


def _number(text, per=1):
    return int(text) / per if text and re.match(r"-?[0-9]+$", text) else None


class AdbRuntime:
    """The benchmark program on the phone."""

    real = True

    def __init__(self, phone, asked, seed):
        self.device = phone
        self.last = None  # see AheadSession
        phone.check()
        cores = phone.fastest_cores(asked["threads"])
        phone.shell("mkdir -p {0} && find {0} -type f -mmin +1440 -delete".format(MODELS))  # of agents that were killed
        flags = "-e cpu -m times -x {} -y 1 -I -S {}".format(asked["threads"], seed)
        mask = "{:x}".format(sum(1 << core for core in cores))
        self._command = "LD_LIBRARY_PATH={} timeout {} taskset {} {} {}".format(FOLDER, RUN_S, mask, PROGRAM, flags)
        self.facts = {"cores_used": cores}
        self.condition = {
            "runtime": asked["runtime"],
            "runtime_version": "perf_test-" + program_hash(phone)[:12],  # it does not say its version
            "provider": asked["provider"],
            "precision": asked["precision"],
            "batch": asked["batch"],
            "threads": asked["threads"],
            "simulated": False,
            "power_mode": phone.power_mode(),
        }

    def load(self, item, fetch):
        """Copy an item's model to the phone and try it; ``fetch()`` gives the bytes of its ONNX file.

        Raises:
            RuntimeRefused: the program cannot run it.
        """
        model = fetch()
        path = "{}/{}-{}.onnx".format(MODELS, hashlib.sha256(model).hexdigest()[:32], os.getpid())
        with tempfile.NamedTemporaryFile(prefix="ofa-adb-") as file:
            file.write(model)
            file.flush()
            self.device.push(file.name, path)
        session = AdbSession(self, path)
        session.measure(FIRST_RUNS)
        return session

    def times(self, path, runs):
        """Milliseconds of so many inferences of a model on the phone."""
        script = "rm -f {2}.csv; {0} -r {1} {2} {2}.csv >{2}.log 2>&1 && cat {2}.csv"
        script += " || {{ code=$?; tail -n 5 {2}.log; exit $code; }}"
        return read_times(self.device.shell(script.format(self._command, runs, path), RUN_S + ASK_S), runs)


def program_hash(phone):
    """sha256 of the program on the phone; what ``--adb-binary`` names is copied there where it is another one.

    Raises:
        RuntimeRefused: there is none.
    """
    there = phone.adb("shell", "sha256sum " + PROGRAM)[1].split(" ")[0]
    given = os.environ.get(BINARY)
    if given:
        try:
            with open(given, "rb") as file:
                here = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise RuntimeRefused("cannot read {}: {}".format(given, error.strerror)) from error
        if here != there:
            phone.push(given, PROGRAM)
            phone.shell("chmod 755 " + PROGRAM)
        return here
    if not re.match(r"[0-9a-f]{64}$", there):
        raise RuntimeRefused(
            "the phone has no {}: build ONNX Runtime for Android and give --adb-binary FILE".format(PROGRAM)
        )
    return there


def read_times(text, runs):
    """Milliseconds of every inference in a result file.

    Raises:
        RuntimeRefused: it has not so many lines, or a time is not a positive number.
    """
    try:
        times = [1000 * float(line.split(",")[1]) for line in text.split("\n") if line.count(",") == 4]
    except ValueError as error:
        raise RuntimeRefused("the program's result file cannot be read: {}".format(error), "failed") from error
    if len(times) != runs or not all(0 < ms < math.inf for ms in times):
        message = "the program's result file has {} times, not all positive, or not {}".format(len(times), runs)
        raise RuntimeRefused(message, "failed")
    return times


class AdbSession(AheadSession):
    """A model on the phone."""

    def __init__(self, runtime, path):
        super().__init__(runtime, lambda runs: runtime.times(path, runs), PROCESS_MS)
        self._phone = runtime.device
        self._path = path

    def close(self):
        """Delete the model on the phone."""
        self._phone.shell("rm -f {}*".format(self._path))
