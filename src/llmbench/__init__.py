"""llmbench: fine-tune open language models, ground them in documents, serve them, and show whether it helped."""
