"""The process of batches of `faulty`."""

import sys

from service.batches import process
from tests.service.faulty import fail_on_demand

if __name__ == "__main__":
    fail_on_demand()
    sys.exit(process.main(sys.argv[1:]))
