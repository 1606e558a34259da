"""What kwok does with nodes and pods: its own fast stages, with what they lack for these checks.

In: the folder of kwok's module. Out: the text of its configuration. No stage is built into kwok.
"""

from pathlib import Path

STAGES = ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease",
          "pod/fast/pod-ready", "pod/fast/pod-complete", "pod/fast/pod-delete")

# A pod with this annotation is a real process: node_processes.py plays its kubelet.
PROCESS = "fanfare.test/process"
# kwok makes every image ready at once, and deletes without any grace: then no disruption budget would
# ever hold anything up. These annotations say how long each takes.
DELAYS = {"pod-ready": "fanfare.test/ready-after", "pod-delete": "fanfare.test/gone-after"}

MATCH = "    matchExpressions:\n"
NOT_A_PROCESS = f"""    - key: '.metadata.annotations["{PROCESS}"]'
      operator: 'DoesNotExist'
"""
DELAY = """  delay:
    durationMilliseconds: 0
    durationFrom:
      expressionFrom: '.metadata.annotations["{}"]'
  next:
"""
# kwok completes pods of Jobs alone. The pod of `helm test` has no Job, and would never end.
OF_JOBS = """    - key: '.metadata.ownerReferences.[].kind'
      operator: 'In'
      values:
      - 'Job'
"""
NOT_RESTARTED = """    - key: '.spec.restartPolicy'
      operator: 'In'
      values:
      - 'Never'
      - 'OnFailure'
"""


def configuration(module):
    return "---\n".join(stage(Path(module) / "kustomize/stage" / f"{path}.yaml") for path in STAGES)


def stage(file):
    text = file.read_text()
    if file.parent.parent.name == "pod":
        text = replaced(text, MATCH, MATCH + NOT_A_PROCESS)
    if file.stem in DELAYS:
        text = replaced(text, "  next:\n", DELAY.format(DELAYS[file.stem]))
    if file.stem == "pod-complete":
        text = replaced(text, OF_JOBS, NOT_RESTARTED)
    return text


def replaced(text, old, new):
    if text.count(old) != 1:
        raise SystemExit(f"kwok's stages are other ones than before: look for {old!r} in {__file__}")
    return text.replace(old, new)
