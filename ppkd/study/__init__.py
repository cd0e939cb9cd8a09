"""What is made of runs: detections, matches, intervals, costs."""
