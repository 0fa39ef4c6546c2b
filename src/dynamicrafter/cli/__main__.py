"""`python -m dynamicrafter.cli`, for where the command itself is not on the path."""

import sys

from dynamicrafter.cli.main import main

sys.exit(main())
