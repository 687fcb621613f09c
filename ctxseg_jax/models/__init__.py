"""Networks: images to named logits."""
