"""From contexts and weights to adapters: examples of decisions and reports, and LoRA fine-tuning on them."""
