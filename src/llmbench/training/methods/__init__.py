"""One module for each method (sft, dpo, ...), and the trainer that they share."""
