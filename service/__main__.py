"""`python -m service`: serve on the address of the settings until told to stop; `--help` lists the settings.

SIGTERM ends it without losing a request, SIGHUP has it load the released networks anew.
"""

import os
import sys
import textwrap

from pydantic import ValidationError

from calibrant.processor import unsuited

from .auth import Keys
from .settings import Settings, unknown
from .supervisor import supervise


def main(arguments: list[str]) -> int:
    if arguments:
        print(described(), file=sys.stdout if arguments == ["--help"] else sys.stderr)
        return 0 if arguments == ["--help"] else 2
    if strange := unknown(os.environ):
        for name, nearest in strange.items():
            print(f"{name} is no setting; the nearest is {nearest}.", file=sys.stderr)
        return 2
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"CALIBRANT_{name}: {problem['msg']}, but is {problem['input']!r}.", file=sys.stderr)
        return 2
    try:
        Keys.read(settings.api_keys)
    except ValueError as error:
        print(f"CALIBRANT_API_KEYS: {error}", file=sys.stderr)
        return 2
    if reason := unsuited():
        print(reason, file=sys.stderr)
        return 1
    return supervise(settings)


def described() -> str:
    """What the service is told by the environment."""
    lines = [(__doc__ or "").strip(), "", "Environment variables, their defaults and what they say:", ""]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else field.default
        lines.append(f"CALIBRANT_{name.upper()} = {default}")
        lines.extend(textwrap.wrap(field.description or "", 100, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
