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
    packages=[*find_packages(include=["ppkd", "ppkd.*"]), "ppkd.configs"],
    # configs/ stands at the top of the repository and inside of the package where that is installed.
    package_dir={"ppkd.configs": "configs"},
    package_data={"ppkd": ["py.typed", "data/teacher_shapes.*", "reporting/page.css"], "ppkd.configs": ["**/*.yml"]},
    entry_points={"console_scripts": ["ppkd = ppkd.cli:main"]},
    python_requires=">=3.10,<3.14",
    # Nothing here may ask for a version of numpy, or for what does, nor for Paddle or ppdet: installing ppkd beside
    # somebody's clone of PaddleDetection leaves all three alone. What ppdet wants (numpy, scipy, pycocotools,
    # matplotlib) comes with ppdet, and ppkd uses it from there.
    install_requires=["pyyaml", "pillow", "safetensors", "requests", "tqdm"],
    extras_require={
        # The wheel of 2023, whose own pins are for Python up to 3.11; above, a clone, or `make install`.
        "paddledet": [
            "paddledet==2.6.0; python_version < '3.12'",
            "numpy<1.24; python_version < '3.12'",  # paddledet 2.6.0 asks for it
            "scikit-learn",  # paddledet imports it and asks for the empty package `sklearn` instead
            "pycocotools",
            "matplotlib",
            "scipy",
        ],
        # What a clone imports, for Pythons for which its requirements.txt pins what has no releases. Its own packages
        # go on being the user's choice: nothing here says which version.
        "clone": ["numpy", "scipy", "shapely", "matplotlib", "pandas", "six", "opencv-python-headless", "pycocotools"],
        "cpu": ["paddlepaddle==2.6.2; python_version < '3.12'", "paddlepaddle==3.3.1; python_version >= '3.12'"],
        "gpu": ["paddlepaddle-gpu==2.6.2; python_version < '3.12'"],  # PyPI has none for Paddle 3
        "onnx": ["paddle2onnx==1.3.1"],  # with Paddle 3: paddle2onnx==2.1.0, without its dependencies
        "test": [
            "pytest", "pytest-timeout", "hypothesis", "ruff", "mkdocs", "onnxruntime",
            "paddle2onnx==1.3.1; python_version < '3.12'",
        ],  # fmt: skip
        "docs": ["mkdocs==1.6.1"],
    },
)
