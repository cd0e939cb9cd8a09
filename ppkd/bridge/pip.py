"""What pip is told, here as everywhere in messages: commands that leave numpy and Paddle as they are."""

import sys

# By what it is imported -> by what it is installed, where that is another name.
_NAMES = {
    "PIL": "pillow", "attr": "attrs", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "distutils": "setuptools", "google": "protobuf", "mpl_toolkits": "matplotlib", "pkg_resources": '"setuptools<80"',
    "sklearn": "scikit-learn", "yaml": "pyyaml",
}  # fmt: skip
# Of PyPI Paddle for GPUs is no more than 2.6.2 for one CUDA.
_OF_GPUS = "the index that https://www.paddlepaddle.org.cn/install names for your CUDA"
# The user's choice.
KEPT = {"numpy", "paddle"}


def install(package):
    """The command that installs a package that is imported as `package`, anew where it is there.

    Left to itself, pip takes what is newest and, with it, another numpy than all else was built for.
    """
    there, numpy = installed(package), version("numpy")
    if package in KEPT and there:
        name = there[-1]  # for GPUs, if both are there
        index = f" -i {_OF_GPUS}" if name.endswith("-gpu") else ""
        return f"pip install --force-reinstall --no-deps {name}=={version(name)}{index}"
    wanted = _NAMES.get(package, there[0] if there else package)
    if package == "numpy" and sys.version_info < (3, 12):
        wanted = '"numpy<1.24"'  # as ppdet's wheel and its clones ask for it on these Pythons
    # OpenCV comes by four names, of which each writes over the others; of all else no more than this one goes.
    gone = there if package == "cv2" else [name for name in there if name == wanted.strip('"').partition("<")[0]]
    first = f"pip uninstall -y {' '.join(gone)} && " if gone else ""
    return f"{first}pip install {wanted}{f' numpy=={numpy}' if numpy and package != 'numpy' else ''}"


def installed(package):
    """What pip knows it by, the one or more that have brought it; empty if it was not pip, or is not there."""
    from importlib import metadata  # as slow to import as all else together

    if package == "google":
        return ["protobuf"] if version("protobuf") else []
    return sorted(set(metadata.packages_distributions().get(package, ())))


def version(*distributions):
    """The version of the first of them, or None."""
    from importlib import metadata

    try:
        return metadata.version(distributions[0]) if distributions else None
    except metadata.PackageNotFoundError:
        return None
