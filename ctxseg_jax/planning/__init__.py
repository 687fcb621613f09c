"""What a training step costs on devices, found by compiling it for them."""
