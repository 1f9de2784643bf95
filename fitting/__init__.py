"""Fitting: runs in, laws and predictions out. A leaf: needs no TensorFlow and no accelerator."""
