"""What tables of measurements have in common, whoever measures: `benchmarks`, `training`, `docker`."""
