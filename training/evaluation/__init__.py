"""How good the answers are: vols, densities and parameters, clean and disturbed, before and after refinement."""
