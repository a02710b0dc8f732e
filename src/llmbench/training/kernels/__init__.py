"""What stands in for PyTorch's and the libraries' own: attention over rows end to end, head, LoRA, compilation."""
