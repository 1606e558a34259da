"""k8s/: every folder as the API server sees it.

In: k8s/base and k8s/overlays by kubectl kustomize. Out: each object is taken by a server-side dry-run, in
the namespace of the folder with the Pod Security that stands there, and without a warning.
"""

import json
import time

from commands import expect, tell


def manifests(cluster):
    begun = time.monotonic()
    folders = sorted(file.parent for file in (cluster.root / "k8s").rglob("kustomization.yaml"))
    expect(len(folders) >= 5, f"k8s has {len(folders)} folders; there must be at least 5")
    seen = 0
    for folder in folders:
        text = cluster.kubectl("kustomize", folder)
        objects = cluster.objects("apply", "--dry-run=client", "-f", "-", text=text)
        spaces = [found for found in objects if found["kind"] == "Namespace"]
        expect(len(spaces) == 1, f"{folder}: there must be one Namespace, not {len(spaces)}")
        # What is in a namespace that is not there cannot be judged, so this one object is made.
        cluster.apply(json.dumps(bare(spaces[0])))
        told = cluster.apply(text, "--dry-run=server").splitlines()
        expect(len(told) == len(objects), f"{folder}: {len(objects)} objects, of which were taken: {told}")
        seen += len(told)
    tell("manifests", seen, f"objects of {len(folders)} folders taken by a server-side dry-run", begun)


def bare(found):
    """Without what kubectl adds to objects."""
    found["metadata"] = {key: found["metadata"][key] for key in ("name", "labels") if key in found["metadata"]}
    return {key: found[key] for key in ("apiVersion", "kind", "metadata")}
