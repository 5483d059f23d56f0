"""`python -m ringbearer`: the same as the command `ringbearer`."""

import sys

from ringbearer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
