"""What of the chart and k8s/ is no part of Kubernetes: the CRDs of others, classes of pods.

In: CRDs from the Go modules of those who make them. Out: how many the API server has established.
"""

import json
import subprocess
from pathlib import Path

from commands import expect

# {module@version: files}
CRDS = {
    "sigs.k8s.io/gateway-api@v1.6.3": [
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ],
    "github.com/kedacore/keda/v2@v2.21.0": [
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
}

# helm/fanfare/ci asks for them. A pod of a class that is not there is refused.
CLASSES = """apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: kata}
handler: kata
"""


def install(cluster):
    count = 0
    for module, files in CRDS.items():
        folder = downloaded(module)
        for file in files:
            cluster.apply((folder / file).read_text())
            count += 1
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    cluster.apply(CLASSES)
    return count


def downloaded(module):
    # Outside of a module of ours: it is their files that are wanted, and not their code.
    done = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, cwd="/")
    expect(done.returncode == 0, f"go could not download {module}: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])
