"""Structure found without labels."""
