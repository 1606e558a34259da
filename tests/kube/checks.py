"""Runs the checks of tests/kube against one control plane.

In: names of checks; none means all. Out: a line for each with how much it saw; exit code 1 where one found
a fault or nothing to look at.
"""

import signal
import sys
import traceback

import check_charts
import check_handover
import check_manifests
import check_scaling
import check_security
import extensions
import planted
from commands import Cluster
from control_plane import ControlPlane, Fault

CHECKS = {
    "security": check_security.pods,
    "budgets": check_security.budgets,
    "manifests": check_manifests.manifests,
    "charts": check_charts.charts,
    "secrets": check_charts.kept_secrets,
    "failed-upgrade": check_charts.failed_upgrade,
    "disruptions": check_charts.disruptions,
    "handover": check_handover.handover,
    "planted": planted.planted,
    "scaling": check_scaling.scaling,
}


def main(wanted):
    unknown = [label for label in wanted if label not in CHECKS]
    if unknown:
        print(f"there is no check {', '.join(unknown)}; there are: {', '.join(CHECKS)}", file=sys.stderr)
        return 64
    # So that the processes end with this one, whoever ends it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = []
    with ControlPlane() as plane:
        cluster = Cluster(plane)
        version = plane.call("GET", "/version")["gitVersion"]
        print(f"Kubernetes {version}, {extensions.install(cluster)} CRDs of others", flush=True)
        for label in wanted or CHECKS:
            try:
                CHECKS[label](cluster)
            except (Fault, OSError) as fault:
                failed.append(label)
                plane.keep = True
                print(f"{label}: FAILED: {fault}", flush=True)
                if isinstance(fault, OSError):
                    traceback.print_exc()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
