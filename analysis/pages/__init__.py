"""Figures, text and templates of the pages."""
