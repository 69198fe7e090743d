"""The trainer: SFT that watches the letter of a decision, and batches that share their prefixes."""
