"""A small fleet as the dashboard's tests see it: three devices, one of which lies about itself."""

import json

from ofa_deploy.fleet.tokens import digest
from ofa_deploy.store import NewestRow, NewItem, Workspace, utc_now

HOSTILE = '<img src=x onerror="window.hacked=1">'
CONDITION = {
    "runtime": "onnxruntime",
    "runtime_version": "1.20",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "batch": 1,
    "threads": 1,
    "simulated": False,
    "power_mode": "10W",
}
WORK = {"kind": "op", "specs": [], "counts": []}
RUNTIME = {name: CONDITION[name] for name in ("runtime", "provider", "precision", "batch", "threads")}


def record(device, key, p50, kind="op", flags=(), simulated=False, **more):
    """A measurement record with what a table shows."""
    numbers = {"p50": p50, "p90": p50 * 1.1, "p99": p50 * 1.4, "se": 0.01, "n": 72, "cov": 0.03}
    facts = {"cpu": "Cortex-A57", "temperature_c": [41.5, 63.0]}
    about = {"device": device, "kind": kind, "key": key, "ops": [key], "arch": None, "facts": facts}
    shared = {"measured_at": "2025-01-02T03:04:05Z", "condition": {**CONDITION, "simulated": simulated}}
    return {**about, **numbers, **shared, "flags": list(flags), "timings": [[p50] * 6] * 12, **more}


def blocks():
    """Keys and milliseconds of the blocks of two resolutions, with three kernels and expansions each."""
    yield "stem-224x224-c3-m0-o16-k3-s2-hswish", 2.5
    yield "stem-160x160-c3-m0-o16-k3-s2-hswish", 1.3
    for cin, cout, reduction, stride, act, more in (
        (16, 24, 2, 2, "relu", ""),
        (24, 24, 4, 1, "relu", "-skip"),
        (24, 40, 4, 2, "relu", "-se{se}"),
        (40, 40, 8, 1, "relu", "-se{se}-skip"),
        (40, 80, 8, 2, "hswish", ""),
    ):
        for resolution in (160, 224):
            size = resolution // reduction
            for kernel in (3, 5, 7):
                for expand in (3, 4, 6):
                    mid = cin * expand
                    tail = more.format(se=mid // 4)
                    macs = size * size * mid * (cin + (kernel**2 + cout) / stride**2)
                    yield f"mbconv-{size}x{size}-c{cin}-m{mid}-o{cout}-k{kernel}-s{stride}-{act}{tail}", macs / 5e6
    yield "classifier-1x1-c80-m0-o1000-k1-s1-none", 0.2


def row(key, p50=1.0, spec=None):
    """A row of a block as the database tells it."""
    return NewestRow("op", key, "2025-01-02T03:04:05Z", p50, p50, p50, 0.01, 72, [], None, spec)


def seed(workspace: Workspace):
    """Devices, measurements, two jobs (one running), and a report of each kind."""
    store = workspace.store
    store.touch_device("jetson-1", {"model": "NVIDIA Jetson Nano", "cores": 4, "memory_mb": 4100})
    store.touch_device("sim-1", {"model": "simulated Jetson Nano", "simulated": True})
    store.touch_device(HOSTILE, {HOSTILE: HOSTILE, "model": HOSTILE})
    rows = [record("jetson-1", key, ms, flags=["noisy"] if "stem-224" in key else ()) for key, ms in blocks()]
    network = {"resolution": 224, "depths": [2, 3, 4, 2, 3]}
    rows.append(record("jetson-1", "ab" * 32, 61.25, "network", arch=network))
    rows += [record("sim-1", key, 2 * ms, simulated=True) for key, ms in blocks()]
    rows.append(record(HOSTILE, HOSTILE, 1.0, flags=[HOSTILE], arch={"depths": HOSTILE}))
    store.add_measurements(rows)
    add_job(store, "a" * 32, "jetson-1", 40)
    run = store.runs.claim("jetson-1", "", 3600).run
    beat(store, run, 3)
    add_job(store, "b" * 32, "sim-1", 25)
    for kind, name in (("audits", "audit"), ("bundles", "report")):
        add_report(workspace.root / kind / "jetson-1", name)
    return run


def add_job(store, job, device, count):
    """A job of one chunk."""
    items = [NewItem(i, "0" * 64, {"key": f"k{i}", **WORK}) for i in range(count)]
    store.jobs.create(job, device, {"runtime": RUNTIME, "settings": {}, "sentinels": []}, [items])


def let_in(store, name):
    """Enrol an agent. Returns its token."""
    code, secret = f"code of {name}", f"{name:s<43}"
    store.access.register(name, {}, digest(code), utc_now(60))
    store.access.enrol(digest(code), digest(secret), {})
    return f"{name}.{secret}"


def beat(store, run, done):
    """Rounds that a run has done; every lease is longer than the last, as a beat that brings little is not stored."""
    store.runs.beat(run, {"phase": "rounds", "items": 40, "settled": 5, "round": done, "rounds_min": 12}, 3600 * done)


def add_report(folder, name):
    """A report whose page tries to run a script."""
    folder.mkdir(parents=True)
    (folder / f"{name}.json").write_text(json.dumps({"target": "jetson-1", "verdict": f"the {name} fits"}))
    page = f"<!doctype html><title>r</title><style>h1 {{ color: rgb(1, 2, 3) }}</style><h1>The {name}</h1>"
    (folder / f"{name}.html").write_text(page + "<script>parent.hacked = 1</script>")
