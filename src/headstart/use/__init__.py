"""What one does with a finished run: load, export, embed, search, select, fine-tune."""
