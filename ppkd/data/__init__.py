"""Data that ppkd brings along: a synthetic detection data set in COCO format (see `shapes`)."""
