"""Cures for defects of Paddle and paddledet: one function a defect, each with a test that it is needed."""
