"""Arrays and tensors only: no napari, no Qt, no files but the model file."""
