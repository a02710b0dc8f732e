"""The model and its tokenizer with what is to be trained: found, tried, quantised, given an adapter."""
