"""The table of scripts/compare.

In: `table` or `json`, and the folder with peers.tsv (name, label, why not run) and the reports of
`fanfare bench`, one file for each peer and load. Out: the table in Markdown or one JSON object, on
stdout. Python's standard library is all it needs.
"""

import datetime
import json
import os
import pathlib
import platform
import sys

# Heading, load, name in JSON, where the figure stands in the report, and what to divide it by.
COLUMNS = [
    ("CPU µs a delivery: one at a time", "one", "one_cpu_us_per_delivery",
     ("figures", "server_cpu_us_per_delivery"), 1),
    ("40 a second", "paced", "paced_cpu_us_per_delivery",
     ("figures", "server_cpu_us_per_delivery"), 1),
    ("eight waiting publishers", "backlog", "backlog_cpu_us_per_delivery",
     ("figures", "server_cpu_us_per_delivery"), 1),
    ("their p50, ms", "backlog", "backlog_p50_ms", ("latency_us", "delivery", "p50"), 1000),
    ("KiB an idle session", "idle", "idle_kib_per_session",
     ("figures", "server_rss_bytes_per_session"), 1024),
    ("CPU µs a connect", "connect", "connect_cpu_us",
     ("figures", "server_cpu_us_per_connect"), 1),
    ("CPU µs an idle session and second", "idle", "idle_cpu_us_per_session_s",
     ("figures", "server_cpu_us_per_session_s"), 1),
]
# Loads by name, in words.
LOADS = {
    "one": "one at a time",
    "paced": "40 a second",
    "backlog": "eight waiting publishers",
    "connect": "connects",
    "idle": "idle sessions",
}
FAULTS = ["missing", "doubled", "reordered", "gaps_told", "sessions_ended"]


def report_of(folder, peer, load):
    """The report of a load, or in words why there is none."""
    try:
        return json.loads((folder / f"{peer}.{load}.json").read_text()), None
    except (OSError, ValueError):
        lines = (folder / f"{peer}.{load}.error").read_text().split("\n")
        words = [line for line in lines if line and not line.startswith("{")]
        return None, " ".join(words[:4]) or "no report and no word why"


def remarks_on(load, report):
    """What must be known of a load to read its figures."""
    counts = report.get("messages") or {}
    words = LOADS[load]
    faults = [f"{counts[name]} {name.replace('_', ' ')}" for name in FAULTS if counts.get(name)]
    if faults:
        yield f"{words}: {', '.join(faults)}"
    if report["generator"]["was_bottleneck"] and load in ("paced", "backlog"):
        yield f"{words}: the generator was the limit, so waits are upper bounds"
    # The server is the first process; Redis, where there is one, the second.
    for process in report["processes"][1:]:
        if counts.get("received"):
            cpu_us = 1e6 * (process["cpu_user_s"] + process["cpu_system_s"])
            share_us = cpu_us / counts["received"]
            yield f"{words}: {process['name']} itself used {share_us:.2f} µs a delivery"


def figure_of(report, path, divisor):
    """A figure of a report; None where it was not measured."""
    for name in path:
        report = (report or {}).get(name)
    return None if report is None else round(report / divisor, 2)


def peer_of(folder, line):
    """One row: label, figures by name, remarks, and why it was not run."""
    name, label, reason = line.split("\t")
    row = {"peer": name, "label": label, "not_run": reason or None, "figures": {}, "remarks": []}
    if reason:
        return row
    reports = {}
    for load, words in LOADS.items():
        reports[load], failure = report_of(folder, name, load)
        if failure:
            row["remarks"].append(f"{words}: not run: {failure}")
        else:
            row["remarks"] += remarks_on(load, reports[load])
    if not any(reports.values()):
        row["not_run"] = failure
        row["remarks"] = []
    for _, load, figure, path, divisor in COLUMNS:
        row["figures"][figure] = figure_of(reports[load], path, divisor)
    return row


def machine():
    """The machine in a few words."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores, {int(pages / 2**30)} GiB, Linux {platform.release().split('-')[0]}"


def table(result):
    """The lines of the table, and below it what must be known beside it."""
    yield f"{result['date']}, {result['machine']}"
    yield ""
    yield "| | " + " | ".join(column[0] for column in COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for row in result["peers"]:
        if row["not_run"]:
            cells = ["not run, see below"] + [""] * (len(COLUMNS) - 1)
        else:
            figures = [row["figures"][column[2]] for column in COLUMNS]
            cells = ["not measured" if figure is None else f"{figure:g}" for figure in figures]
        yield f"| {row['label']} | " + " | ".join(cells) + " |"
    yield ""
    for row in result["peers"]:
        if row["not_run"]:
            yield f"- {row['label']}: not run: {row['not_run'].strip()}"
        yield from (f"- {row['label']}: {remark}" for remark in row["remarks"])


def main():
    """Prints the result in the form that was asked for."""
    form, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    lines = (folder / "peers.tsv").read_text().splitlines()
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "peers": [peer_of(folder, line) for line in lines],
    }
    if form == "json":
        print(json.dumps(result, ensure_ascii=False))
    else:
        print("\n".join(table(result)))


main()
