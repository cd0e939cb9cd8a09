"""Data sets in the formats that people have become one in COCO's: a reader a format, one writer, and a look at it."""
