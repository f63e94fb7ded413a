"""Random changes of training patches: where their voxels are read, and what happens to their grey values."""
