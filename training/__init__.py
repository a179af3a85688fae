"""Training of the calibration networks: synthetic panels, augmentation, the networks, the loop, the evaluation."""
