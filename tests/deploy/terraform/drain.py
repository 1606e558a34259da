"""scripts/ecs-drain against nodes and an ECS that are played (played_ecs.py).

In: the script. Out: the number of cases, and faults. What a cloud does is not tested.
"""

import concurrent.futures
import re
import subprocess
import threading

from played_ecs import play

UPDATE = "--force-new-deployment"


def in_order(script):
    run = play(script, UPDATE, "--stop-s", "20", "--delay-s", "300")
    assert run.code == 0, run.err
    assert "the service is steady, 2 tasks have left" in run.out, run.out
    assert run.calls[0][0] == "update-service" and UPDATE in run.calls[0], run.calls[0]
    assert all(len(node.told) == 1 for node in run.nodes), "each node is told once"
    assert run.nodes[1].told[0] - run.nodes[0].told[0] >= 0.5, "the second leaves when the first has left"


def all_before_the_cut(script, count, ends_after_s, stop_s, delay_s):
    run = play(script, UPDATE, "--stop-s", str(stop_s), "--delay-s", str(delay_s), count=count, ends_after_s=ends_after_s)
    told, late = run.told_after_s(), run.late(delay_s)
    assert not late, f"{len(late)} of {count} nodes were still there when the balancer cut: {late[:5]}"
    assert run.code == 0 and f"{count} tasks have left" in run.out, f"{run.code}\n{run.out[-300:]}{run.err[-300:]}"
    assert len(told) == count and told[-1] <= delay_s - stop_s, f"the last was told {told[-1]:.1f} s after the first"
    # At an even pace: neither all at the beginning nor all at the end.
    half = sum(at < told[-1] / 2 for at in told)
    assert 0.3 * count <= half <= 0.7 * count, f"{half} of {count} were told in the first half"
    assert told[-1] >= (delay_s - stop_s) / 2, f"all were told within {told[-1]:.1f} s: that is a stampede"


def twenty_seven_at_an_even_pace(script):
    all_before_the_cut(script, 27, 1.7, 2, 9)


def three_hundred_at_an_even_pace(script):
    all_before_the_cut(script, 300, 3, 4, 20)


def one_that_does_not_end(script):
    run = play(script, UPDATE, "--stop-s", "1", "--wait-s", "6", ends_after_s=None)
    assert run.code == 1, run.out
    assert "old-0 (127.0.40.1) did not end 1 s after it was told" in run.err, run.err


def nobody_is_reached(script):
    def prepare(nodes):
        for index, node in enumerate(nodes.all):
            node.is_reached = False
            # ECS kills them in the end.
            threading.Timer(4 + index / 10, nodes.end, [node]).start()

    run = play(script, UPDATE, "--stop-s", "1", "--delay-s", "3", count=3, prepare=prepare)
    assert run.code == 1, f"exit {run.code}: nobody was told, so it is no success\n{run.out}{run.err}"
    assert "0 tasks have left" in run.out and "3 of 3 tasks did not leave by themselves" in run.err, run.out + run.err
    assert "127.0.40.1 was never reached" in run.err and "api_client_security_group_ids" in run.err, run.err


def one_that_is_not_reached_keeps_nobody(script):
    def prepare(nodes):
        nodes.all[0].is_reached = False
        threading.Timer(7, nodes.end, [nodes.all[0]]).start()

    run = play(script, UPDATE, "--stop-s", "1", "--delay-s", "5", count=5, ends_after_s=0.2, prepare=prepare)
    assert run.code == 1 and "1 of 5 tasks did not leave by themselves" in run.err, f"{run.code}\n{run.err}"
    assert all(node.told for node in run.nodes[1:]), "the others are told all the same"


def a_503_is_asked_again(script):
    def prepare(nodes):
        nodes.all[0].refusals = [503, 503]
        nodes.all[2].refusals = [404]
        # ECS kills what did not leave.
        for node in nodes.all:
            threading.Timer(15, nodes.end, [node]).start()

    run = play(script, UPDATE, "--stop-s", "2", "--delay-s", "20", count=4, ends_after_s=0.2, prepare=prepare)
    assert run.code == 0 and "4 tasks have left" in run.out, f"{run.code}\n{run.out}{run.err}"
    assert [len(node.asked_at) for node in run.nodes] == [3, 1, 2, 1], "a node that answers 503 or 404 is asked again"
    assert run.nodes[1].told[0] < run.nodes[0].told[0], "a node that answers 503 keeps nobody"


def an_update_that_is_taken_back(script):
    run = play(script, UPDATE, "--stop-s", "2", "--delay-s", "20", rolled_back=True, ends_after_s=0.2)
    assert run.code == 1, f"exit {run.code}: the service does not run what was asked for\n{run.err}"
    assert "ECS deployment circuit breaker: rolling back" in run.err, run.err
    assert "2 tasks have left" in run.out, "nodes are told all the same"


def an_update_without_tasks_that_leave(script):
    run = play(script, UPDATE, count=0)
    assert run.code == 0 and "0 tasks have left" in run.out, f"{run.code}\n{run.out}{run.err}"
    run = play(script, UPDATE, count=0, rolled_back=True)
    assert run.code == 1 and "circuit breaker" in run.err, f"{run.code}\n{run.out}{run.err}"


def aws_that_fails_for_a_moment(script):
    run = play(script, UPDATE, "--stop-s", "2", "--delay-s", "20", failed_looks=[2, 3, 5], ends_after_s=0.2)
    assert run.code == 0 and "2 tasks have left" in run.out, f"{run.code}\n{run.out}{run.err}"
    assert "rate exceeded (look 2 of 12 that fail)" in run.err, run.err


def an_update_that_others_began_long_ago(script):
    run = play(script, "--stop-s", "5", "--delay-s", "300", age_s=299, ends_after_s=2, count=4, cli=1)
    assert run.code == 0, run.err
    assert run.told_after_s()[-1] < 3, "what may have been leaving for long is told at once"
    assert re.search("4 tasks may be leaving since [0-9]+ s: all are told at once", run.err), run.err
    run = play(script, "--stop-s", "5", "--delay-s", "300", age_s=10, ends_after_s=1, count=2)
    assert run.code == 0 and run.told_after_s()[-1] >= 1, "there is time, so they leave in order"


def a_wrong_key(script):
    run = play(script, UPDATE, key="other")
    assert run.code == 1 and "answered 401" in run.err, run.err
    assert "the nodes refuse FANFARE_API_KEY" in run.err, run.err


def bad_input(script):
    run = play(script, key="")
    assert run.code == 64 and "FANFARE_API_KEY is not set" in run.err, run.err
    run = play(script, "--stop-s", "400")
    assert run.code == 64 and "--delay-s (300) must be at least --stop-s (400)" in run.err, run.err
    run = play(script, "--stop-s", "nan")
    assert run.code == 64, run.err
    run = play(script, "--unknown")
    assert run.code == 64, run.err


CASES = [
    in_order,
    twenty_seven_at_an_even_pace,
    three_hundred_at_an_even_pace,
    one_that_does_not_end,
    nobody_is_reached,
    one_that_is_not_reached_keeps_nobody,
    a_503_is_asked_again,
    an_update_that_is_taken_back,
    an_update_without_tasks_that_leave,
    aws_that_fails_for_a_moment,
    an_update_that_others_began_long_ago,
    a_wrong_key,
    bad_input,
]


def fault_of(case, script):
    """What is wrong in this case, or None."""
    try:
        case(script)
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        return f"scripts/ecs-drain: {case.__name__}: {fault}"
    return None


def faults(root, only=None):
    """The number of cases, and faults; of one case where `only` names it."""
    cases = [case for case in CASES if only in (None, case.__name__)]
    script = str(root / "scripts/ecs-drain")
    # They wait most of the time, so some go at once; the one with many nodes by itself.
    many = [case for case in cases if case is three_hundred_at_an_even_pace]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: fault_of(case, script), [case for case in cases if case not in many]))
    found += [fault_of(case, script) for case in many]
    return len(cases), [fault for fault in found if fault]
