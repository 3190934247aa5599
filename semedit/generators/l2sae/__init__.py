"""L2SAE: a swapping autoencoder with regions."""
