"""Make the page of a store anew."""

import argparse
import sys
from pathlib import Path

from spear_training.data.reader import DataFileError
from spear_training.data.report.store_page import write_report


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: written, 2: there is no store, or the page cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python3 -m spear_training.data.report",
        description=__doc__,
        epilog="example: python3 -m spear_training.data.report stores/bridge",
    )
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="its folder")
    for store in parser.parse_args(arguments).stores:
        try:
            print(write_report(store))
        except (DataFileError, OSError) as error:
            print(f"report: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
