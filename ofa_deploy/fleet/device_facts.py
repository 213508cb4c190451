"""What a device says of itself, as far as something here understands it; everything else is only shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeGuard

from ofa_deploy.json_types import JSON

WARM_C = 80.0  # degrees at which a processor may lower its clock
BUSY_PCT = 60.0
STOLEN_PCT = 1.0


@dataclass(frozen=True)
class DeviceFacts:
    """A device's facts. Of a reading at both ends of a measurement, the later; None for what is no number.

    Attributes:
        cores: of the processor.
        memory_mb: of the whole device.
        simulated: whether it is a simulation; None where it does not say.
        load: processes that want a core.
        cores_busy_pct, steal_pct: of the cores' time, what all processes took, and other guests of the host.
        cpu_mhz, cpu_mhz_max: the clock.
        temperature_c: of the processor.
    """

    cores: JSON = None
    memory_mb: float | None = None
    simulated: bool | None = None
    load: float | None = None
    cores_busy_pct: float | None = None
    steal_pct: float | None = None
    cpu_mhz: float | None = None
    cpu_mhz_max: float | None = None
    temperature_c: float | None = None

    @classmethod
    def read(cls, facts: Mapping[str, JSON]) -> Self:
        """From what an agent sent, which may be anything."""
        simulated = facts.get("simulated")
        return cls(
            cores=facts.get("cores"),
            memory_mb=_last(facts.get("memory_mb")),
            simulated=simulated if isinstance(simulated, bool) else None,
            load=_last(facts.get("load")),
            cores_busy_pct=_last(facts.get("cores_busy_pct")),
            steal_pct=_last(facts.get("steal_pct")),
            cpu_mhz=_last(facts.get("cpu_mhz")),
            cpu_mhz_max=_last(facts.get("cpu_mhz_max")),
            temperature_c=_last(facts.get("temperature_c")),
        )

    @property
    def reasons(self) -> list[str]:
        """What explains the device's speed, in words."""
        said = []
        if self.load is not None:
            said.append(f"load {self.load:.1f} on {'?' if self.cores is None else self.cores} cores")
        if self.cores_busy_pct is not None and self.cores_busy_pct >= BUSY_PCT:
            said.append(f"cores {self.cores_busy_pct:.0f} % busy")
        if self.steal_pct is not None and self.steal_pct >= STOLEN_PCT:
            said.append(f"{self.steal_pct:.0f} % of the cores' time went to other guests of the host")
        if self.cpu_mhz and self.cpu_mhz_max and self.cpu_mhz < 0.9 * self.cpu_mhz_max:
            said.append(f"clock {self.cpu_mhz:.0f} of {self.cpu_mhz_max:.0f} MHz")
        if self.temperature_c is not None and self.temperature_c >= WARM_C:
            said.append(f"{self.temperature_c:.0f} °C")
        return said


def is_number(value: JSON) -> TypeGuard[float]:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _last(value: JSON) -> float | None:
    found = value[-1] if isinstance(value, list) and value else value
    return found if is_number(found) else None
