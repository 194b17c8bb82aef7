"""Records of forward and backward passes."""
