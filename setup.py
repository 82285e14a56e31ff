"""The package ``effsim`` lives in ``sim/``; its sub-packages are listed here so that none is forgotten in a wheel."""

from setuptools import find_packages, setup

ROOMS = {"effsim": "sim", "effsim.models": "models", "effsim.validation": "validation"}
CATALOGUES = {"effsim.hw_configs": "hw_configs", "effsim.workloads": "workloads"}

packages = ["effsim"] + [f"effsim.{name}" for name in find_packages("sim")]
for package, folder in list(ROOMS.items())[1:]:
    packages += [package] + [f"{package}.{name}" for name in find_packages(folder)]
packages += list(CATALOGUES)

setup(
    packages=packages,
    package_dir=ROOMS | CATALOGUES,
    package_data={"effsim": ["py.typed"], "effsim.dashboard": ["assets/*"], "effsim.validation.record": ["*.json"]}
    | {name: ["*.yaml", "**/*.yaml", "**/*.json"] for name in CATALOGUES},
)
