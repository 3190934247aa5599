"""StyleGAN2, and e4e's encoder of it."""
