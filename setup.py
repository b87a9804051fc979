"""The compiled modules; everything else is in pyproject.toml."""

import os
from pathlib import Path

import simdjson
from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent
SIMDJSON = Path(simdjson.__file__).parent

# What links simdjson in: its C++ source lies in the pysimdjson package.
USES_SIMDJSON = {"appliance.exchanges.binance_decoder"}


def extension(path: Path) -> Extension:
    """One compiled module from one .pyx file."""
    name = ".".join(path.relative_to(HERE).with_suffix("").parts)
    uses_simdjson = name in USES_SIMDJSON
    return Extension(
        name,
        [str(path.relative_to(HERE)), *([str(SIMDJSON / "simdjson.cpp")] if uses_simdjson else [])],
        language="c++",
        include_dirs=[str(HERE), str(SIMDJSON)],
        # No -march=native: simdjson and CRC32C choose their instructions at run time.
        extra_compile_args=["-std=c++20", "-O3", "-fno-strict-aliasing", "-Wno-address-of-packed-member"],
        depends=[str(p) for p in path.parent.glob("*.hpp")],
    )


setup(
    ext_modules=cythonize(
        [extension(path) for path in sorted((HERE / "appliance").rglob("*.pyx"))],
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    ),
)
