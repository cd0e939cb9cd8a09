"""How long annotations of COCO's size are looked at before a run starts, and in how much memory; no image is opened.

    python benchmarks/bridge/validate_coco_size.py

generates a file like instances_train2017.json (118,000 images, 860,000 boxes with a polygon each) in a scratch folder,
reads and judges it as training, evaluation and ``ppkd doctor --data`` do, and prints seconds, seconds of the processor
and the process's peak of memory. It exits with 1 if that took more than 30 s or 2 GB.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time

from ppkd.bridge.annotations import Found
from ppkd.bridge.datasets import judge

CATEGORIES = 80
SECONDS, GIGABYTES = 30, 2


def generate(path, images, boxes, corners, seed=0):
    """Write an annotation file: boxes inside of their images, each with a polygon of so many corners."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"info": {}, "images": [')
        for number in range(images):
            entry = {"id": number + 1, "file_name": f"{number + 1:012d}.jpg", "width": 640, "height": 480}
            file.write((", " if number else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for number in range(boxes):
            x, y = round(draw.uniform(0, 600), 2), round(draw.uniform(0, 440), 2)
            width, height = round(draw.uniform(2, 640 - x), 2), round(draw.uniform(2, 480 - y), 2)
            polygon = [round(x + draw.random() * width, 2) for _ in range(2 * corners)]
            entry = {
                "id": number + 1, "image_id": draw.randint(1, images), "category_id": draw.randint(1, CATEGORIES),
                "bbox": [x, y, width, height], "area": round(width * height, 2), "iscrowd": 0,
                "segmentation": [polygon] if corners else [],
            }  # fmt: skip
            file.write((", " if number else "") + json.dumps(entry))
        categories = [{"id": number + 1, "name": f"class {number + 1}"} for number in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--corners", type=int, default=4, help="of each box's polygon; 0 writes none")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "instances.json")
        generate(path, args.images, args.boxes, args.corners)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"file: {os.path.getsize(path) / 1e6:.0f} MB; this process so far: {before:.2f} GB")
        found, begin, busy = Found(), time.time(), time.process_time()
        judge("TrainDataset", {}, path, found)
        seconds, busy = time.time() - begin, time.process_time() - busy
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{found.kept} of {found.listed} boxes are kept; found: {dict(found.counts) or 'nothing'}")
    print(f"{seconds:.1f} s (at most {SECONDS}), {busy:.1f} s of the processor, {used:.2f} GB (at most {GIGABYTES})")
    return int(seconds > SECONDS or used > GIGABYTES)


if __name__ == "__main__":
    raise SystemExit(main())
