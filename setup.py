"""Install fastres: `pip install -e .`, or with extras `pip install -e .[ffcv,dali,search,dashboard,timm,onnx,dev]`.

The extras need system packages or large wheels, so the base install leaves them out:
ffcv  builds from source against the packages that .ci/system-libraries installs
dali  a wheel of about 200 MB for CUDA 13; it also runs CPU pipelines without a GPU; dali-cuda12 where torch is built
      for CUDA 12
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', (Path(__file__).parent / "fastres/__init__.py").read_text()).group(1)

setup(
    name="fastres",
    version=VERSION,
    description="Fast, trustworthy staged fine-tuning of pretrained residual networks on small images",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["fastres", "fastres.*", "preprocess", "preprocess.*"]),
    package_data={"fastres": ["docs/*", "*.pyi", "py.typed"], "fastres.model": ["shipped/*"]},
    entry_points={"console_scripts": ["fastres = fastres.__main__:console"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "numpy>=2.0",
        "numba>=0.61",
        "pillow>=10.2",
        "safetensors>=0.4",
        "tqdm>=4.66",
        "matplotlib>=3.8",
        "wandb>=0.31",
    ],
    extras_require={
        "ffcv": ["ffcv>=1.0.2", "opencv-python"],
        "dali": ["nvidia-dali-cuda130>=2.4"],
        "dali-cuda12": ["nvidia-dali-cuda120>=2.4"],
        "search": ["optuna>=5"],
        "dashboard": ["wandb-workspaces>=0.4.2"],
        "timm": ["timm>=1.0"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.6"],
        "dev": ["pytest>=8", "pytest-timeout", "pytest-xdist>=3.7", "ruff>=0.17,<0.18", "setuptools"],
    },
)
