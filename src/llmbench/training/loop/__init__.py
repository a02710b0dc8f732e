"""What happens in each step and at each evaluation: batches, optimizer, figures, questions, checkpoints, random states."""
