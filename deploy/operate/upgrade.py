"""Changes the replicas one at a time, without losing a request.

deploy/upgrade IMAGE       replaces them by ones of another image
deploy/upgrade --restart   replaces them by ones of the same image, with the settings and keys as they are now
deploy/upgrade --networks  has them load the networks of their folder anew

To replace a replica a new one is started beside it. Once the new one is ready, which it is only after its networks have
reproduced their golden output, and the proxy sends it requests, the old one is told to stop: it says that it is not
ready, the proxy takes it out, it finishes what it has. If a new one does not become ready it is removed, the old ones
go on, and the exit status is 1. Run again, it goes on where it stopped; with the old image, it is the way back.
"""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from .stack import LAST_WORDS, Failure, Replica, Stack, docker, log, readiness, require_image

PATIENCE = 120.0
"""Seconds for a new replica to become ready, or for an old one to load its networks."""
REFUSING = 5.0
"""Seconds after which one that answers, but says that it is not ready, is not going to be."""
TAKEN_IN = 10.0
"""Seconds for the proxy to see that a replica is ready."""
_LOOK = 0.3
_OUTCOME = r"worker \d+: (Reloaded\.|Not reloaded: [^\"\n]*|It did not answer\.)"
"""Of a reload, in either format of the log."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or (arguments[0].startswith("-") and arguments[0] not in ("--networks", "--restart")):
        print((__doc__ or "").strip())
        return 0 if arguments in (["-h"], ["--help"]) else 2
    stack = Stack(Path(__file__).parents[1])
    try:
        if arguments == ["--networks"]:
            reload_networks(stack)
        else:
            upgrade(stack, None if arguments == ["--restart"] else arguments[0])
    except Failure as failure:
        print(f"deploy/upgrade: {failure}", file=sys.stderr)
        return 1
    return 0


def upgrade(stack: Stack, wanted: str | None) -> None:
    """
    wanted  the image; None for the one that there is, and every replica anew
    raises  Failure if a new replica does not become ready: it is gone then, and the old ones serve
    """
    replicas = stack.replicas()
    if not replicas:
        raise Failure("no replica is there to be replaced: `deploy/up` starts them.")
    variables = {replica.image_variable for replica in replicas}
    if len(variables) > 1:
        raise Failure(f"replicas of {' and '.join(sorted(variables))} run here: one image cannot be that of both.")
    (variable,) = variables
    image = wanted or stack.setting(variable, replicas[0].image)
    require_image(image)
    target = docker("image", "inspect", "--format", "{{.Id}}", image).strip()
    old = [replica for replica in replicas if wanted is None or replica.image_id != target or not replica.running]
    # Those that do not run first: compose would start them again, and count them.
    for number, replica in enumerate(sorted(old, key=lambda replica: replica.running), start=1):
        try:
            version = replace(stack, replica, image)
        except Failure as failure:
            left = f"{len(old) - number + 1} of {len(replicas)} replicas as before"
            raise Failure(f"stopped with {left}: {failure}") from None
        print(f"{number} of {len(old)}: {replica.name} replaced, serving {version}", flush=True)
    stack.write_setting(variable, image)
    if os.environ.get(variable, image) != image:
        print(f"The environment says {variable}={os.environ[variable]}, and it goes before .env: change it.")
    print(f"All {len(replicas)} replicas run {image}.")


def replace(stack: Stack, old: Replica, image: str) -> str:
    """Start a replica of that image, then stop the old one; what the new one serves."""
    before = [replica for replica in stack.replicas() if replica.service == old.service]
    if not old.running:
        # Counted by compose, but of no use.
        docker("rm", "--force", old.id)
        before.remove(old)
    scale = f"{old.service}={len(before) + 1}"
    started: list[Replica] = []
    try:
        try:
            stack.compose(
                *("up", "--detach", "--no-deps", "--no-build", "--no-recreate", "--scale", scale, old.service),
                **{old.image_variable: image},
            )
        finally:
            known = {replica.id for replica in before}
            started = [r for r in stack.replicas() if r.service == old.service and r.id not in known]
        (new,) = started
        version = until_ready(new)
        until_in_proxy(stack, new)
    except BaseException:
        for replica in started:
            docker("rm", "--force", replica.id)
        raise
    if old.running:
        retire(stack, old, new)
    return version


def until_ready(replica: Replica) -> str:
    """The versions that it serves, once it is ready.

    raises  Failure if it is not going to be
    """
    end, refusing_since = monotonic() + PATIENCE, None
    while monotonic() < end:
        state = docker("inspect", "--format", "{{.State.Running}} {{.RestartCount}}", replica.id).split()
        if state != ["true", "0"]:
            raise Failure(f"the new replica ended. Its last words:\n{log(replica.id, *LAST_WORDS)}")
        answer = readiness(replica)
        if answer is not None and answer.ready:
            return answer.says
        if answer is None:
            refusing_since = None
        elif refusing_since is None:
            refusing_since = monotonic()
        elif monotonic() - refusing_since > REFUSING:
            raise Failure(f"the new replica is not ready. It says: {answer.says}")
        sleep(_LOOK)
    raise Failure(
        f"the new replica did not answer within {PATIENCE:g} s. Its last words:\n{log(replica.id, *LAST_WORDS)}"
    )


def until_in_proxy(stack: Stack, replica: Replica) -> None:
    end = monotonic() + TAKEN_IN
    while replica.address not in stack.in_proxy(replica):
        if monotonic() > end:
            raise Failure(f"the new replica is ready, but the proxy has not taken it in within {TAKEN_IN:g} s.")
        sleep(_LOOK)


def retire(stack: Stack, old: Replica, new: Replica) -> None:
    """Stop a replica as gently as it can be: SIGTERM, then all the time that it needs.

    raises  Failure if the proxy sent it requests until its end
    """
    stopping = subprocess.Popen(["docker", "stop", old.id], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = False
    while not out and stopping.poll() is None:
        sleep(_LOOK)
        out = old.address not in stack.in_proxy(new)
    stopping.wait()
    docker("rm", "--force", old.id)
    if not out:
        raise Failure(f"{old.name} stopped before the proxy had taken it out: CALIBRANT_DRAIN_S is too short.")


def reload_networks(stack: Stack) -> None:
    """raises  Failure if a replica refuses the new networks: it and those after it serve the old ones"""
    replicas = [replica for replica in stack.replicas() if replica.running]
    if not replicas:
        raise Failure("no replica runs.")
    for number, replica in enumerate(replicas, start=1):
        begun = datetime.now(UTC).isoformat()
        docker("kill", "--signal", "HUP", replica.id)
        said = until_reloaded(replica, begun)
        if said != "Reloaded.":
            raise Failure(f"stopped at replica {number} of {len(replicas)}, which serves what it did: {said}")
        ready = readiness(replica)
        print(f"{number} of {len(replicas)}: {replica.name}: {ready.says if ready else said}", flush=True)


def until_reloaded(replica: Replica, since: str) -> str:
    """What its supervisor logs of each of its workers; of several the first that failed."""
    workers = int(docker("exec", replica.id, "sh", "-c", "echo ${CALIBRANT_WORKERS:-1}"))
    end = monotonic() + PATIENCE
    while monotonic() < end:
        outcomes: list[str] = re.findall(_OUTCOME, log(replica.id, "--since", since))
        failed = [outcome for outcome in outcomes if outcome != "Reloaded."]
        if failed:
            return failed[0]
        if len(outcomes) >= workers:
            return outcomes[0]
        sleep(_LOOK)
    return f"it logged no outcome within {PATIENCE:g} s (CALIBRANT_LOG_LEVEL must be info)."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
