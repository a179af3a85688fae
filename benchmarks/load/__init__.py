"""Load on a service of this machine, and faults while it comes: for benchmarks and for the tests of the deployment."""
