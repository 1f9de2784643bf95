"""What runs tell of how they are trained: the best learning rate of a sweep, a curve's end before it is reached."""
