"""What libraries must be told before they run."""
