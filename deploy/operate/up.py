"""`deploy/up [SERVICE...]`: brings the stack up, or up to date with its settings, and waits until it serves.

What is missing of secrets/ is made first. With names of services in compose.yaml only those are started.
"""

import sys
from pathlib import Path
from time import monotonic, sleep

from .secret_files import make_missing
from .stack import LAST_WORDS, Failure, Stack, log, require_image

PATIENCE = 180.0
"""Seconds."""


def main(services: list[str]) -> int:
    if any(service.startswith("-") for service in services):
        print((__doc__ or "").strip())
        return 0 if services[0] in ("-h", "--help") else 2
    stack = Stack(Path(__file__).parents[1])
    try:
        bring_up(stack, services)
    except Failure as failure:
        print(f"deploy/up: {failure}", file=sys.stderr)
        return 1
    return 0


def bring_up(stack: Stack, services: list[str]) -> None:
    """raises  Failure if it does not serve within `PATIENCE`"""
    project = stack.setting("COMPOSE_PROJECT_NAME", "calibrant")
    stack.write_setting("COMPOSE_PROJECT_NAME", project)
    if "gpu" in stack.setting("COMPOSE_PROFILES", ""):
        image = stack.setting("CALIBRANT_GPU_IMAGE", "calibrant-gpu:latest")
        require_image(image)
    else:
        image = stack.setting("CALIBRANT_IMAGE", "calibrant-cpu:latest")
        try:
            require_image(image)
        except Failure:
            stack.compose("build", "calibrant", CALIBRANT_IMAGE=image)
    for line in make_missing(stack, image):
        print(f"made {line}")
    stack.compose("up", "--detach", *services)
    wait(stack)
    port = stack.setting("CALIBRANT_HTTPS_PORT", "8443")
    print(
        f"""It serves. From this folder ({stack.folder}):
curl --cacert secrets/certificate.pem -H "Authorization: Bearer $(cat secrets/client_key)" \\
    -H 'Content-Type: application/json' -d @../examples/dax_20020705.json https://localhost:{port}/v1/calibrate"""
    )


def wait(stack: Stack) -> None:
    """Until every container of the stack is healthy."""
    end = monotonic() + PATIENCE
    while True:
        unwell = {}
        for container in stack.containers():
            state = container["State"]
            status = state.get("Health", {}).get("Status", state["Status"])
            if status not in ("healthy", "running"):
                unwell[container["Name"].lstrip("/")] = status
        if not unwell:
            return
        if monotonic() > end:
            said = "\n".join(f"{name} is {status}. {log(name, *LAST_WORDS)}" for name, status in unwell.items())
            raise Failure(f"not everything is well after {PATIENCE:g} s.\n{said}")
        sleep(0.5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
