"""A run as others can load it: tables, cards, adapters, and the way to the Hub."""
