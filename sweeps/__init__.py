"""Many runs: from a grid to the parts of a study, resumable."""
