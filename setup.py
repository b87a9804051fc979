"""The compiled modules; everything else is in pyproject.toml."""

import os
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
CORES = os.cpu_count() or 1
INSTRUMENT = os.environ.get("MDC_INSTRUMENT", "").split()  # sanitizers, counters: scripts/instrument.py

# What takes simdjson in whole, by #include "simdjson.cpp": its C++ source lies in the pysimdjson package.
USES_SIMDJSON = {"appliance.exchanges.json_index"}


def build_time(module: Extension) -> tuple[bool, int]:
    """A key that sorts by how long a module takes to compile."""
    return module.name in USES_SIMDJSON, Path(module.sources[0]).stat().st_size


def compiled_modules() -> list[Extension]:
    """One module from each .pyx, the longest to compile first, so that no core waits for it at the end."""
    import simdjson
    from Cython.Build import cythonize

    include = Path(simdjson.__file__).parent

    def extension(path: Path) -> Extension:
        name = ".".join(path.relative_to(HERE).with_suffix("").parts)
        return Extension(
            name,
            [str(path.relative_to(HERE))],
            language="c++",
            include_dirs=[str(HERE), str(include)],
            # No -march=native: simdjson and CRC32C choose their instructions at run time.
            # -g0: Debian's Python asks for -g, which is a third of the build's time and most of the files' size.
            extra_compile_args=["-std=c++20", "-O3", "-g0", "-fno-strict-aliasing", "-Wno-address-of-packed-member", *INSTRUMENT],
            extra_link_args=INSTRUMENT,
            depends=[str(header.relative_to(HERE)) for header in sorted(path.parent.glob("*.hpp"))],
        )

    modules = cythonize(
        [extension(path) for path in sorted((HERE / "appliance").rglob("*.pyx"))],
        nthreads=CORES,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    )
    return sorted(modules, key=build_time, reverse=True)


setup(
    # pip's editable install would compile into a directory that it throws away; scripts/install.py compiles in place beside it.
    ext_modules=[] if "MDC_COMPILED_IN_PLACE" in os.environ else compiled_modules(),
    options={"build_ext": {"parallel": CORES}},
)
