"""Operation of the compose stack, with Python's standard library alone: what `deploy/up` and `deploy/upgrade` run."""
