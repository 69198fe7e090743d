"""How often the printed intervals cover the truth."""
