"""Write the Python stubs of every .proto into proto/gen, with types; `--check` fails when they are stale.

Decides: one command, no path hacks: `proto/gen` is a source root of the project, so `import millrace.flows.v1.flow_pb2`
just works.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import _proto, protoc

HERE = Path(__file__).parent
COMMITTED = HERE / "gen"


def generate(target: Path) -> None:
    """Compile every .proto below this folder into `target`. Raises SystemExit when one is faulty; protoc says why."""
    plugins = Path(sys.executable).parent  # protoc looks for them by name, also when the environment is not activated
    os.environ["PATH"] = f"{plugins}{os.pathsep}{os.environ.get('PATH', '')}"
    sources = sorted(str(path.relative_to(HERE)) for path in (HERE / "millrace").rglob("*.proto"))
    well_known = Path(_proto.__path__[0])
    arguments = ["protoc", f"-I{HERE}", f"-I{well_known}", f"--python_out={target}", f"--mypy_out={target}"]
    arguments += [f"--grpc_python_out={target}", f"--mypy_grpc_out={target}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused a .proto; its message stands above.")
    for folder in sorted({path.parent for path in target.rglob("*.py")}):
        (folder / "py.typed").touch()


def stale_files(fresh: Path) -> list[str]:
    """Paths, relative to proto/gen, that differ between `fresh` and what is committed."""
    names = {
        str(path.relative_to(root))
        for root in (fresh, COMMITTED)
        for path in root.rglob("*.py*")
        if path.suffix != ".pyc"
    }
    return sorted(
        name
        for name in names
        if not (
            (fresh / name).exists()
            and (COMMITTED / name).exists()
            and filecmp.cmp(fresh / name, COMMITTED / name, shallow=False)
        )
    )


def main() -> None:
    """Write the stubs, or with `--check` compare them. What was there is replaced only when all went well."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = stale_files(Path(folder))
        if "--check" not in sys.argv:
            shutil.rmtree(COMMITTED, ignore_errors=True)
            shutil.copytree(Path(folder, "millrace"), COMMITTED / "millrace")
            return
    if stale:
        raise SystemExit("Stubs are stale, run `make proto`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
