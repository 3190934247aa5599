"""What several editors share."""
