"""Solutions and gradients to about 1e-13, found without anything of the layer's own."""
