"""What runs on an NVIDIA GPU: the networks' sessions and the refinement of many panels. Needs the extra `gpu`."""
