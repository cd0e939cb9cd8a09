"""ppkd: knowledge distillation for object detectors on PaddlePaddle."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "ppkd/__init__.py").read_text()).group(1)

setup(
    name="ppkd",
    version=VERSION,
    description="Knowledge distillation for object detectors on PaddlePaddle",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ppkd", "ppkd.*"]),
    package_data={"ppkd": ["data/teacher_shapes.*", "reporting/page.css"]},
    entry_points={"console_scripts": ["ppkd = ppkd.cli:main"]},
    python_requires=">=3.10,<3.12",
    install_requires=[
        "paddledet==2.6.0",
        "numpy<1.24",  # paddledet 2.6.0 asks for it
        "scikit-learn",  # paddledet imports it and asks for the empty package `sklearn` instead
        "pycocotools",
        "pyyaml",
        "pillow",
        "matplotlib",
        "safetensors",
        "requests",
        "tqdm",
        "scipy",
    ],
    extras_require={
        "cpu": ["paddlepaddle==2.6.2"],
        "gpu": ["paddlepaddle-gpu==2.6.2"],
        "onnx": ["paddle2onnx==1.3.1"],  # with Paddle 3: paddle2onnx==2.1.0, without its dependencies
        "test": ["pytest", "pytest-timeout", "hypothesis", "ruff", "mkdocs", "paddle2onnx==1.3.1", "onnxruntime"],
        "docs": ["mkdocs==1.6.1"],
    },
)
