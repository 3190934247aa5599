"""Pictures with label maps, cameras and attributes to train on."""
