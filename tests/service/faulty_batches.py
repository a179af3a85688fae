"""The batch worker of `faulty`."""

import sys

from service.batches import worker
from tests.service.faulty import fail_on_demand

if __name__ == "__main__":
    fail_on_demand()
    sys.exit(worker.main(sys.argv[1:]))
