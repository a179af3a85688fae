"""From a training run to a released artefact: export, verify, manifest."""
