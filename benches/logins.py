"""Reads what identity-load wrote, prints one table, and fails when a bound is broken."""

import json
import pathlib
import sys


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    least_of_lanes, most_flood_ratio, most_refused_p99, most_growth, least_saturate_ratio = map(float, sys.argv[2:])
    logins, lookups, flood, saturate, bcrypt = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("logins", "lookups", "flood", "saturate", "bcrypt")
    )
    lanes = [float(line) for line in (folder / "lanes").read_text().split()]
    of_lanes = divide(logins["ok_per_second"], sum(lanes) / len(lanes))
    alone, flooded, offers = flood["lookups_alone"], flood["lookups_flooded"], flood["logins"]
    memory = flood["memory"]
    growth = max(memory["middle_mb"], memory["end_mb"]) - memory["before_mb"]

    row("lanes alone, before, after", ", ".join(f"{rate:.1f}" for rate in lanes), "", "")
    row("logins", per_second(logins), latency(logins["latency"]), codes(logins["codes"]))
    ratio("… of the lanes alone", of_lanes)
    row("… by the bcrypt crate", per_second(bcrypt), latency(bcrypt["latency"]), codes(bcrypt["codes"]))
    ratio("… of the bcrypt crate", divide(logins["ok_per_second"], bcrypt["ok_per_second"]))
    for name, calls in (
        ("look-ups, idle", lookups),
        ("look-ups before the flood", alone),
        ("look-ups beside logins", flood["lookups_beside"]),
        ("look-ups in the flood", flooded),
    ):
        row(name, per_second(calls), latency(calls["latency"]), codes(calls["codes"]))
        row("… of it before sent", "", latency(calls["sent_behind"]), "")
    ratio("… p99 of that before", flood["p99_ratio"])
    for beside in flood["logins_beside"]:
        row("logins beside look-ups", per_second(beside), latency(beside["latency"]), codes(beside["codes"]))
    ratio("… admitted in the flood, of it", flood["admitted_ratio"])
    row("logins in the flood", per_second(offers), "", f"{offers['offered']} offered")
    row("… admitted", "", latency(offers["admitted_latency"]), offers["admitted"])
    row("… refused", "", latency(offers["refused_latency"]), offers["refused"])
    row("… refused, no RetryInfo", "", "", offers["refused_without_retry_info"])
    row("… late", "", "", offers["late"])
    row("… with other codes", "", "", codes(offers["other"]))
    megabytes = (memory["before_mb"], memory["middle_mb"], memory["end_mb"])
    row("resident memory", "", "before, amid, end: " + ", ".join(f"{mb:.1f}" for mb in megabytes) + " MB", "")
    for name, key in (
        ("logins alone", "logins_alone"),
        ("logins beside all look-ups", "logins_beside"),
        ("look-ups without a pause", "lookups"),
    ):
        calls = saturate[key]
        row(name, per_second(calls), latency(calls["latency"]), codes(calls["codes"]))
    ratio("… logins of those alone", saturate["logins_ratio"])

    refused = offers["refused_latency"]
    broken = [
        promise
        for promise, kept in (
            (f"logins reach {least_of_lanes} of the lanes alone", (of_lanes or 0) >= least_of_lanes),
            (
                f"the flood leaves the look-ups' p99 within {most_flood_ratio} times",
                flood["p99_ratio"] is not None and flood["p99_ratio"] <= most_flood_ratio,
            ),
            (
                f"99 of 100 refusals come within {most_refused_p99} ms",
                refused is not None and refused["p99_ms"] <= most_refused_p99,
            ),
            ("no admitted login is late", offers["late"] == 0),
            ("every refusal says when to try again", offers["refused_without_retry_info"] == 0),
            (f"the flood takes at most {most_growth} MB", growth <= most_growth),
            (
                f"look-ups leave logins {least_saturate_ratio} of their rate",
                (saturate["logins_ratio"] or 0) >= least_saturate_ratio,
            ),
            (
                "every look-up and every login that is no part of the flood is answered OK",
                all(
                    set(calls["codes"]) == {"OK"}
                    for calls in (
                        *(logins, bcrypt, lookups, alone, flooded),
                        *(saturate["logins_alone"], saturate["lookups"]),
                    )
                ),
            ),
        )
        if not kept
    ]
    if broken:
        sys.exit("broken:" + "".join(f"\n  {promise}" for promise in broken))


def row(name: str, rate: str, times: str, counts: object) -> None:
    print(f"{name:<26} {rate:>10}  {times:<66} {counts}".rstrip())


def ratio(name: str, value: float | None) -> None:
    row(name, "none" if value is None else f"{value:.2f}", "", "")


def divide(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def per_second(calls: dict) -> str:
    rate = calls.get("ok_per_second", calls.get("achieved_per_second"))
    return f"{rate:.1f} / s"


def latency(times: dict | None) -> str:
    if times is None:
        return "none"
    p50, p99, p999, longest = (times[key] for key in ("p50_ms", "p99_ms", "p999_ms", "max_ms"))
    return f"p50 {p50:.2f}  p99 {p99:.2f}  p99.9 {p999:.2f}  max {longest:.2f} ms"


def codes(counts: dict) -> str:
    return ", ".join(f"{code} {count}" for code, count in counts.items()) or "none"


main()
