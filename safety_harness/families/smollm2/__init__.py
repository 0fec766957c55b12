"""SmolLM2-135M-Instruct: an aligned teacher and its students as LoRA adapters, with all that made them."""
