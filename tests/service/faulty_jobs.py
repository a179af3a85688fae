"""The job process of `faulty`."""

import sys

from service.jobs import process
from tests.service.faulty import fail_on_demand

if __name__ == "__main__":
    fail_on_demand()
    sys.exit(process.main(sys.argv[1:]))
