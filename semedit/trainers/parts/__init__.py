"""Networks and terms that several trainers share."""
