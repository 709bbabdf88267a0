"""The charts of a run over time; they share one axis, one table of figures, and the stretch that is looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final

from naiad.loadtest._report.chart import Band, Bars, Chart, Line, Mark, Table
from naiad.loadtest._report.scale import Linear, Log, from_zero
from naiad.loadtest._report.units import show_bytes, show_count, show_share, show_us, unit_us

__all__ = ["latency_axis", "over_time"]

_ROOM: Final = 1.16  # above the highest value, for the names of bands
_NEAR: Final = 1.8  # a limit so many times the highest value still belongs on the axis
_STALL: Final = 12  # a peak so many times the median makes a linear axis useless
Points = Sequence[Mapping[str, Any]]
Content = Mapping[str, Any]

# What the table of all points has: field, heading, how a value is written.
_COLUMNS: Final = (
    ("offered_per_s", "offered/s", show_count),
    ("throughput_per_s", "requests/s", show_count),
    ("p50_us", "p50", show_us),
    ("p99_us", "p99", show_us),
    ("service_p99_us", "p99 of the service time", show_us),
    ("in_flight", "in flight", show_count),
    ("users", "users", show_count),
    ("errors", "errors", show_count),
    ("server_cpu_cores", "server CPU cores", show_count),
    ("server_rss_bytes", "server memory", show_bytes),
    ("gpu_share", "GPU busy", show_share),
    ("gpu_memory_busy_share", "GPU memory busy", show_share),
    ("gpu_memory_bytes", "GPU memory", show_bytes),
    ("gpu_power_w", "GPU power (W)", show_count),
    ("gpu_sm_mhz", "SM clock (MHz)", show_count),
    ("gpu_temperature_c", "GPU temperature (°C)", show_count),
    ("gpu_pcie_rx_bytes_per_s", "PCIe to the GPU, per second", show_bytes),
    ("gpu_pcie_tx_bytes_per_s", "PCIe from the GPU, per second", show_bytes),
)


def over_time(results: Content, slos: Sequence[Content] = (), prefix: str = "") -> list[Chart]:
    """Return the curves over time that there is data for; they share one x-axis and one table."""
    points = results["points"]
    if len(points) < 2:
        return []
    return _TimeCharts(points, slos, prefix, open_loop=results["users"] is None).charts()


class _TimeCharts:
    def __init__(self, points: Points, slos: Sequence[Content], prefix: str, *, open_loop: bool) -> None:
        self._points, self._slos, self._prefix, self._open_loop = points, slos, prefix, open_loop
        self._at_s = [point["at_s"] for point in points]
        self._half_s = min(after - before for before, after in pairwise(self._at_s)) / 2
        self._x = Linear(self._at_s[0] - self._half_s, self._at_s[-1] + self._half_s)
        self._columns = [column for column in _COLUMNS if self._known(column[0])]
        self._table = Table(
            id=f"{prefix}points",
            head=("second", *(heading for _, heading, _ in self._columns)),
            rows=[
                (
                    self._x.position(point["at_s"]),
                    (
                        f"{point['at_s']:.2f} s{' (warm-up)' if point['warmup'] else ''}".replace("-", "−"),
                        *(show(point.get(field)) for field, _, show in self._columns),
                    ),
                )
                for point in points
            ],
        )

    def charts(self) -> list[Chart]:
        """Return every chart that has data."""
        found = [self._throughput()]
        if self._known("p50_us"):
            found.append(self._latency())
        if self._known("in_flight"):
            found.append(self._in_flight())
        if any(point["errors"] for point in self._points):
            found.append(self._errors())
        if self._known("server_cpu_cores"):
            found.append(self._chart("cpu", "CPU of the server", "cores", [("server_cpu_cores", "cores", "green")]))
        if self._known("server_rss_bytes"):
            found.append(self._memory())
        return [*found, *self._gpus()]

    def _gpus(self) -> Iterator[Chart]:
        """Yield the charts of the server's GPUs, all of them together."""
        share = Linear(0.0, _ROOM, 0.01)
        busy = self._only(("gpu_share", "GPU busy", "violet"), ("gpu_memory_busy_share", "its memory busy", "teal"))
        if busy:
            yield self._chart("gpu", "GPU of the server", "% of the time busy", busy, y=share)
        if power := self._only(("gpu_power_w", "power", "red")):
            yield self._chart("gpu-power", "Power of the GPU", "W", power)
        if memory := self._only(("gpu_memory_bytes", "in use", "teal")):
            yield self._bytes("gpu-memory", "Memory of the GPU", memory)
        pcie = self._only(
            ("gpu_pcie_rx_bytes_per_s", "to the GPU", "blue"), ("gpu_pcie_tx_bytes_per_s", "from the GPU", "amber")
        )
        if pcie:
            yield self._bytes("gpu-pcie", "PCIe of the GPU", pcie, "/s", note="Each sample counts 20 ms.")
        if clock := self._only(("gpu_sm_mhz", "SM clock", "blue")):
            yield self._chart("gpu-clock", "Clock of the GPU", "MHz", clock)

    def _only(self, *series: tuple[str, str, str]) -> list[tuple[str, str, str]]:
        return [one for one in series if self._known(one[0])]

    def _throughput(self) -> Chart:
        series = [("throughput_per_s", "achieved", "green")]
        if self._known("offered_per_s"):
            series.insert(0, ("offered_per_s", "offered", "grey"))
        note = "Arrivals that were due, and answers that came." if len(series) == 2 else "Answers per second."
        return self._chart("throughput", "Throughput", "requests/s", series, note=note)

    def _latency(self) -> Chart:
        series = [("p50_us", "p50", "blue"), ("p99_us", "p99", "red")]
        note = "From the request's sending to its answer."
        if self._open_loop:
            note = "From the moment a request was due to its answer; the service time counts from the moment it left."
            if self._known("service_p99_us") and any(p["service_p99_us"] != p["p99_us"] for p in self._points):
                series.append(("service_p99_us", "p99 of the service time", "amber"))
        values = [point[field] for point in self._points for field, _, _ in series]
        y, unit, limits = latency_axis(values, self._slos)
        if isinstance(y, Log):
            note += " The axis is logarithmic."
        return self._chart("latency", "Latency", unit, series, note=note, y=y, marks=limits)

    def _in_flight(self) -> Chart:
        series = [("in_flight", "in flight", "violet")]
        if self._known("users"):
            series.insert(0, ("users", "users", "grey"))
        return self._chart(
            "in-flight",
            "Requests in flight",
            "requests",
            series,
            note="Sent and not yet answered, at the end of each interval.",
        )

    def _memory(self) -> Chart:
        return self._bytes("memory", "Memory of the server", [("server_rss_bytes", "resident", "teal")])

    def _bytes(
        self, name: str, title: str, series: Sequence[tuple[str, str, str]], per: str = "", note: str = ""
    ) -> Chart:
        largest = max(point.get(field) or 0 for point in self._points for field, _, _ in series)
        unit, factor = ("GiB", 2.0**30) if largest >= 2**30 else ("MiB", 2.0**20)
        y = Linear(0.0, max(largest, factor) * _ROOM, factor)
        return self._chart(name, title, f"{unit}{per}", series, y=y, note=note)

    def _errors(self) -> Chart:
        edges = [(max(at_s - self._half_s, self._x.low), at_s + self._half_s) for at_s in self._at_s]
        errors = [float(point["errors"]) for point in self._points]
        y, _ = from_zero(errors, room=_ROOM)
        return self._put(
            "errors",
            "Failed requests",
            "Per interval.",
            "requests",
            [Bars(name="errors", edges=edges, y=errors, color="red")],
            ("errors",),
            y,
        )

    def _chart(
        self,
        name: str,
        title: str,
        unit: str,
        series: Sequence[tuple[str, str, str]],
        *,
        note: str = "",
        y: Linear | Log | None = None,
        marks: Sequence[Mark] = (),
    ) -> Chart:
        lines = [
            Line(
                name=label,
                x=self._at_s,
                y=[point.get(field) for point in self._points],
                color=color,
                dashed=color == "grey",
            )
            for field, label, color in series
        ]
        if y is None:
            y, _ = from_zero((value for line in lines for value in line.y), room=_ROOM)
        return self._put(name, title, note, unit, lines, [field for field, _, _ in series], y, marks)

    def _put(
        self,
        name: str,
        title: str,
        note: str,
        unit: str,
        series: Sequence[Line | Bars],
        fields: Sequence[str],
        y: Linear | Log,
        marks: Sequence[Mark] = (),
    ) -> Chart:
        known = [field for field, _, _ in self._columns]
        warmup = [Band(name="warm-up", start=self._x.low, end=0.0)] if self._x.low < 0 else []
        return Chart(
            id=f"{self._prefix}{name}",
            title=title,
            note=note,
            x=self._x,
            y=y,
            x_title="seconds of the measurement",
            y_title=unit,
            series=series,
            table=self._table,
            columns=[known.index(field) + 1 for field in fields],
            bands=warmup,
            marks=marks,
            zoom=(self._x.low, self._x.high),
            shows_table=False,
        )

    def _known(self, field: str) -> bool:
        if field == ("users" if self._open_loop else "offered_per_s"):
            return False
        return any(point.get(field) is not None for point in self._points)


def latency_axis(values: Sequence[float | None], slos: Sequence[Content] = ()) -> tuple[Linear | Log, str, list[Mark]]:
    """Return an axis on which a stall does not press everything else flat, its unit, and the limits that lie on it."""
    known = [value for value in values if value] or [1.0]
    limits = [
        Mark(name=slo["slo"], value=slo["limit"], axis="y")
        for slo in slos
        if slo["metric"] in {"p50", "p99"} and slo["limit"] < _NEAR * max(known)
    ]
    if max(known) < _STALL * median(known):
        y, unit = from_zero([*known, *(mark.value for mark in limits)], unit_us, room=_ROOM)
        return y, unit, limits
    unit, factor = unit_us(max(known))
    low, high = min(known) * 0.7, max([*known, *(mark.value for mark in limits)])
    return Log(low, high * (high / low) ** (_ROOM - 1), factor), unit, [mark for mark in limits if mark.value > low]
