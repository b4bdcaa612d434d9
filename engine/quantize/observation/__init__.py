"""What the float network's values are on the calibration images, and the ranges that come of it."""
