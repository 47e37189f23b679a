"""`python -m mnist_tb` is the command mnist-tb."""

import sys

from mnist_tb.cli.main import main

sys.exit(main())
